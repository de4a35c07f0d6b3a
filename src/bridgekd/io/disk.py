"""Writes that survive a power cut, and disk errors as one sentence."""

import errno
import os
import threading
from pathlib import Path

from bridgekd.errors import InputError


def write_atomic(path: Path, text: str) -> None:
    """The file holds all of `text` or is as it was, also after a power cut."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.writing")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


class translate_disk_errors:
    """Turns a disk's refusal into one sentence; the work so far stays where it is. `named` is what
    names the folder.
    """

    def __init__(self, folder: Path, named: str = "`store`") -> None:
        self._folder = folder
        self._named = named

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        reasons = {
            errno.ENOSPC: "the disk is full; free some space",
            errno.EDQUOT: "the disk quota is used up; free some space",
            errno.EROFS: f"the disk is read-only; choose another {self._named}",
            errno.EACCES: f"writing is not permitted; choose another {self._named}",
            errno.EPERM: f"writing is not permitted; choose another {self._named}",
            errno.ENOTDIR: f"part of the path is a file; choose another {self._named}",
        }
        if isinstance(exc, OSError) and exc.errno in reasons:
            reason = reasons[exc.errno]
            raise InputError(
                f"cannot write to {self._folder}: {reason} and give the same command again; "
                "everything finished so far is kept"
            ) from exc


def fsync_files(folder: Path) -> None:
    """Every file of a folder is on the disk."""
    for file in (p for p in folder.rglob("*") if p.is_file()):
        with open(file, "rb") as stream:
            os.fsync(stream.fileno())


def fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
