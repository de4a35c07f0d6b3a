"""Write files so that they survive a power failure, and translate disk errors."""

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from bridgekd.errors import InputError

FULL_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def open_atomic(path: Path, mode: int = 0o600) -> Iterator[TextIO]:
    """Open a text file for writing that replaces `path` when everything is on the disk.

    If the block raises, `path` stays as it was. By default only the owner can read the file.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.writing")
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(descriptor, "w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, text: str, mode: int = 0o600) -> None:
    """Write `text` to a file. After a power failure the file has all of it or is as before."""
    with open_atomic(path, mode) as file:
        file.write(text)


def make_private_folder(folder: Path) -> None:
    """Create a folder that only its owner can read. One that exists stays as it is."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


@contextmanager
def translate_disk_errors(folder: Path, named: str = "`store`") -> Iterator[None]:
    """Turn disk errors into an InputError with the next step. `named` is the key of the folder."""
    try:
        yield
    except OSError as exc:
        reasons = {
            errno.ENOSPC: "The disk is full. Free some space",
            errno.EDQUOT: "The disk quota is used up. Free some space",
            errno.EROFS: f"The disk is read-only. Choose another {named}",
            errno.EACCES: f"Writing is not permitted. Choose another {named}",
            errno.EPERM: f"Writing is not permitted. Choose another {named}",
            errno.ENOTDIR: f"Part of the path is a file. Choose another {named}",
            errno.EISDIR: f"A folder is in the place of a file. Choose another {named}",
            errno.EEXIST: f"A file has this name. Choose another {named}",
            errno.ELOOP: f"The path is a loop of links. Choose another {named}",
            errno.ENAMETOOLONG: f"The path is too long. Choose another {named}",
            errno.ENOENT: f"{exc.filename or folder} does not exist, or was removed. Create it",
            errno.EIO: "The disk reports an error. Check it",
        }
        if exc.errno not in reasons:
            raise
        raise InputError(
            f"Cannot write to {folder}: {reasons[exc.errno]} and run the same command again. "
            "Finished stages are saved."
        ) from exc


def fsync_files(folder: Path) -> None:
    """Flush every file of a folder to the disk."""
    for file in (p for p in folder.rglob("*") if p.is_file()):
        with open(file, "rb") as stream:
            os.fsync(stream.fileno())


def fsync_folder(folder: Path) -> None:
    """Flush the names of a folder to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
