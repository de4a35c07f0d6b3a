"""How long work tells how far it is: a callable, so that the core needs no terminal."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]  # (what, done, total)


def silent(what: str, done: int, total: int) -> None:
    """The progress of somebody who does not look."""
