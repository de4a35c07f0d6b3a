"""The transports: every module here that ends in TRANSPORT, plugins, and files of a recipe."""

from pathlib import Path

from bridgekd.recipe import TeacherOptions
from bridgekd.teacher.transport import ResolvedTeacher, Transport
from bridgekd.variants import Registry

TRANSPORTS = Registry("transport", __name__, "TRANSPORT", Transport)


def resolve_teacher(teacher: TeacherOptions) -> ResolvedTeacher:
    """Return a teacher with its transport.

    Raises InputError for an unknown transport or option, and a file that cannot be loaded.
    """
    settings = TRANSPORTS.resolve(teacher.transport)
    return ResolvedTeacher(teacher, TRANSPORTS.load(settings), TRANSPORTS.parse_options(settings))


def prepare_teacher(teacher: TeacherOptions, folder: Path) -> TeacherOptions:
    """Return the teacher with all paths of its transport found from the recipe's folder."""
    settings = TRANSPORTS.resolve(teacher.transport, folder)
    teacher = teacher.model_copy(update={"transport": TRANSPORTS.get_ref(settings)})
    prepare = TRANSPORTS.load(settings).prepare
    if prepare is None:
        return teacher
    return prepare(teacher, TRANSPORTS.parse_options(settings), folder)
