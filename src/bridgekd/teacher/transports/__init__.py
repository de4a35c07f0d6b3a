"""The transports: every module here that ends in TRANSPORT, plugins, and files of a recipe."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel

from bridgekd.config import Price, Teacher
from bridgekd.errors import BadInput
from bridgekd.teacher.transport import KnownAnswers, Transport
from bridgekd.variants import Registry

TRANSPORTS = Registry("transport", __name__, "TRANSPORT", Transport)


@dataclass(frozen=True, slots=True)
class ResolvedTeacher:
    """A recipe's teacher with its transport and what depends on both."""

    teacher: Teacher
    transport: Transport
    options: BaseModel

    @property
    def price(self) -> Price | None:
        """What a request is charged; None where nobody knows."""
        price, has_batch_price = self.teacher.list_price, self.transport.has_batch_price
        return price and price.for_transport(has_batch_price=has_batch_price)

    @property
    def host(self) -> str:
        """The server's name for messages, without what else a URL may carry."""
        return self.transport.local_source or urlsplit(self.teacher.url).hostname or "The teacher"

    def load_answers(self) -> KnownAnswers | None:
        """Return the answers that are known beforehand; None where the transport knows none."""
        load = self.transport.load_answers
        return None if load is None else load(self.teacher, self.options)

    def check_price(self) -> None:
        """Raise InputError where dollars cannot be limited, because no price is known."""
        if self.transport.is_paid and self.price is None:
            raise BadInput(
                f"Dollars are limited, but the price of {self.teacher.model} is unknown. Set "
                f"teacher.price in dollars per million tokens (0 and 0 for a free server)."
            )


def resolve_teacher(teacher: Teacher) -> ResolvedTeacher:
    """Return a teacher with its transport.

    Raises InputError for an unknown transport or option, and a file that cannot be loaded.
    """
    settings = TRANSPORTS.resolve(teacher.transport)
    return ResolvedTeacher(teacher, TRANSPORTS.load(settings), TRANSPORTS.parse_options(settings))


def prepare_teacher(teacher: Teacher, folder: Path) -> Teacher:
    """Return the teacher with all paths of its transport found from the recipe's folder."""
    settings = TRANSPORTS.resolve(teacher.transport, folder)
    teacher = teacher.model_copy(update={"transport": TRANSPORTS.get_ref(settings)})
    prepare = TRANSPORTS.load(settings).prepare
    if prepare is None:
        return teacher
    return prepare(teacher, TRANSPORTS.parse_options(settings), folder)
