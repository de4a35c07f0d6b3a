"""The transports: every module here that ends in TRANSPORT, plugins, and files of a recipe."""

from pathlib import Path

from bridgekd.recipe import TeacherOptions
from bridgekd.teacher.transport import ResolvedTeacher, Transport
from bridgekd.variants import Registry

TRANSPORTS = Registry("transport", __name__, "TRANSPORT", Transport)


def resolve_teacher(teacher: TeacherOptions) -> ResolvedTeacher:
    """Return a teacher with its transport.

    Raises InputError for an unknown transport or option, or a file that cannot be loaded.
    """
    ref = TRANSPORTS.resolve(teacher.transport)
    return ResolvedTeacher(teacher, TRANSPORTS.load(ref), TRANSPORTS.parse_options(ref))


def prepare_teacher(teacher: TeacherOptions, folder: Path) -> TeacherOptions:
    """Return the teacher with the paths of its transport resolved against the recipe's folder."""
    ref = TRANSPORTS.resolve(teacher.transport, folder)
    teacher = teacher.model_copy(update={"transport": TRANSPORTS.get_ref(ref)})
    prepare = TRANSPORTS.load(ref).prepare
    return prepare(teacher, TRANSPORTS.parse_options(ref), folder) if prepare else teacher
