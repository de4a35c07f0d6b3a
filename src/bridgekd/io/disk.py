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
def open_atomic(path: Path) -> Iterator[TextIO]:
    """Open a text file for writing that replaces `path` when everything is on the disk.

    If the block raises, `path` stays as it was.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.writing")
    try:
        with open(temporary, "w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, text: str) -> None:
    """Write `text` to a file. After a power failure the file has all of it or is as before."""
    with open_atomic(path) as file:
        file.write(text)


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
