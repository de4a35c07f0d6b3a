"""The ledger's file: opening it to write or to read, and refusing what is not one.

What SQLite and the disk say becomes one sentence with the file and the next step.
"""

import errno
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bridgekd.errors import DiskFullError, InputError
from bridgekd.ledger import schema

RESERVED_BYTES = 16 << 20  # room for the answers in flight, should the disk fill up meanwhile
# Where WAL's shared memory and locks do not hold between machines: https://sqlite.org/wal.html
_NETWORK_FILE_SYSTEMS = (
    "nfs", "cifs", "smb", "afp", "afs", "ncp", "9p", "drvfs", "vboxsf", "prl_fs", "davfs",
    "lustre", "gpfs", "beegfs", "ceph", "gluster", "panfs", "orangefs", "pvfs", "fuse.gluster",
    "fuse.ceph", "fuse.juicefs", "fuse.sshfs", "fuse.rclone", "fuse.s3fs", "fuse.gcsfuse",
    "fuse.goofys", "fuse.mount-s3", "fuse.blobfuse", "fuse.vmhgfs",
)  # fmt: skip


def open_for_writing(path: Path) -> sqlite3.Connection:
    """The writing connection; an empty file gets its tables."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        check_is_ledger(db, path)
        db.execute("PRAGMA busy_timeout = 10000")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        schema.create_tables(db)
    except BaseException:
        db.close()
        raise
    return db


def open_for_reading(path: Path) -> sqlite3.Connection:
    """A reading connection; where WAL's side files cannot be made, the file as it lies."""
    uri = path.resolve().as_uri()
    db = sqlite3.connect(f"{uri}?mode=ro", uri=True, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA user_version").fetchone()
    except sqlite3.OperationalError as exc:
        db.close()
        log = Path(f"{path}-wal")
        if log.exists() and log.stat().st_size:
            raise InputError(
                f"Ledger {path} cannot be read where it lies, because its newest rows are still "
                f"in {log.name}; copy both to a folder that can be written."
            ) from exc
        db = sqlite3.connect(f"{uri}?immutable=1", uri=True, isolation_level=None)
    return db


def check_is_ledger(db: sqlite3.Connection, path: Path) -> None:
    """InputError for a database that is no ledger, or one of another version."""
    if not schema.is_ledger(db):
        raise InputError(
            f"{path} is a SQLite file but not a bridgekd ledger; name another file for the ledger."
        )
    version = schema.get_version(db)
    if version > schema.VERSION:
        raise InputError(
            f"{path} was written by a newer bridgekd (file version {version}, this one reads "
            f"{schema.VERSION}). Update bridgekd."
        )
    if 0 < version < schema.VERSION:
        raise InputError(
            f"{path} was written by a development version of bridgekd before 0.1.0 (file version "
            f"{version}, this one reads {schema.VERSION}). Export it with the version that wrote "
            f"it, and import the export into a new ledger."
        )


def check_local_disk(path: Path) -> None:
    """InputError for a place on a network or shared file system, where WAL is unsafe."""
    import psutil  # late: only a ledger that will be written asks

    mounts = [(p.mountpoint, p.fstype) for p in psutil.disk_partitions(all=True)]
    kind = find_file_system(path.resolve(), mounts)
    if kind.lower().startswith(_NETWORK_FILE_SYSTEMS):
        raise InputError(
            f"Ledger {path} lies on a shared file system ({kind}), where SQLite's log can lose "
            f"what was paid for; name a file on a local disk (ledger: /var/tmp/ledger.db), and "
            f"keep a copy with `bridgekd ledger export`."
        )


def find_file_system(path: Path, mounts: Iterable[tuple[str, str]]) -> str:
    """The kind of file system that an absolute path lies on; "" where no mount holds it.

    `mounts` are (mount point, kind); of two at one point the later one hides the earlier.
    """
    best, kind = -1, ""
    for point, fstype in mounts:
        if path.is_relative_to(point) and len(Path(point).parts) >= best:
            best, kind = len(Path(point).parts), fstype
    return kind


class ReservedSpace:
    """Disk space set aside while a ledger is open, given up so that paid answers find room."""

    def __init__(self, ledger: Path) -> None:
        self._path = Path(f"{ledger}.spare")
        self.used = False

    def allocate(self) -> None:
        """Sets the space aside."""
        descriptor = os.open(self._path, os.O_CREAT | os.O_WRONLY)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, 0, RESERVED_BYTES)
            else:
                os.write(descriptor, bytes(RESERVED_BYTES))
        finally:
            os.close(descriptor)

    def free(self) -> bool:
        """Frees the space; False if that had been done before."""
        if self.used:
            return False
        self.used = True
        self.delete()
        return True

    def delete(self) -> None:
        """Removes the file, if it is there."""
        with suppress(FileNotFoundError):
            self._path.unlink()


@contextmanager
def translate_sqlite_errors(path: Path) -> Iterator[None]:
    """Turns what SQLite and the disk say into one sentence with the file and the next step."""
    try:
        yield
    except (sqlite3.OperationalError, OSError) as exc:
        text = str(exc)
        if "disk is full" in text or getattr(exc, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(
                f"Ledger {path}: {text}; the disk is full; free some space and run the same "
                f"command again. What was written is safe."
            ) from exc
        if "is locked" in text:
            advice = "another program holds it; close that program and run the same command again"
        else:
            advice = (
                "it cannot be read or written there; check the path, its permissions and the disk"
            )
        raise InputError(f"Ledger {path}: {text}; {advice}. What was written is safe.") from exc
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise  # a fault of this program, not of the file
    except sqlite3.DatabaseError as exc:
        raise InputError(
            f"{path} is not a ledger ({exc}); name another file or put the right one back."
        ) from exc
