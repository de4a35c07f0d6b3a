"""The paths that a user writes in a recipe."""

import errno
from pathlib import Path

from bridgekd.errors import InputError
from bridgekd.messages import format_value

_REASONS = {
    errno.ENAMETOOLONG: "A name in it is too long",
    errno.ELOOP: "Its symbolic links form a loop",
    errno.EACCES: "Reading its folder is not permitted",
}


def resolve_path(folder: Path, source: str) -> Path:
    """Return a path that is relative to `folder`; `~` is the home folder. It may not exist.

    Raises InputError if no file can have this path.
    """
    if "://" in source:  # a path would keep its password
        raise InputError(f"{format_value(source)} is an address. Download it and name its file.")
    try:
        path = folder / Path(source).expanduser()
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return path
    except OSError as exc:
        reason = _REASONS.get(exc.errno or 0, exc.strerror)
    except (RuntimeError, ValueError) as exc:  # no such user; a NUL
        reason = str(exc).rstrip(".")
    else:
        return path
    raise InputError(f"{format_value(source)} is not a usable path: {reason}. Name another path.")
