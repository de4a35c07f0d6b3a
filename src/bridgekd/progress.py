"""How long work reports how far it is: a callable, so that no layer below needs a terminal."""

from typing import Protocol


class Progress(Protocol):
    """What long work calls as it advances. Called often; it must return quickly."""

    def __call__(self, what: str, done: int, total: int, /) -> None:
        """Take the name of the work, and how many of how many parts are done."""


def silent(what: str, done: int, total: int) -> None:
    """The progress of somebody who does not look."""
