"""Open the ledger's file for writing or reading, and refuse files that are not ledgers.

Errors of SQLite and of the disk become a message with the file and the next step.
"""

import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bridgekd.errors import DiskFullError, InputError
from bridgekd.io.disk import FULL_DISK_ERRORS
from bridgekd.ledger import schema

RESERVED_BYTES = 16 << 20  # for the answers of open requests, in case the disk fills up
# WAL's shared memory and locks do not work between machines: https://sqlite.org/wal.html
_NETWORK_FILE_SYSTEMS = (
    "nfs", "cifs", "smb", "afp", "afs", "ncp", "9p", "drvfs", "vboxsf", "prl_fs", "davfs",
    "lustre", "gpfs", "beegfs", "ceph", "gluster", "panfs", "orangefs", "pvfs", "fuse.gluster",
    "fuse.ceph", "fuse.juicefs", "fuse.sshfs", "fuse.rclone", "fuse.s3fs", "fuse.gcsfuse",
    "fuse.goofys", "fuse.mount-s3", "fuse.blobfuse", "fuse.vmhgfs",
)  # fmt: skip


def open_for_writing(path: Path) -> sqlite3.Connection:
    """Return a connection for writing. An empty file gets its tables."""
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
    """Return a connection for reading. In a read-only folder it reads the main file alone."""
    uri = path.resolve().as_uri()
    db = sqlite3.connect(f"{uri}?mode=ro", uri=True, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA user_version").fetchone()
    except sqlite3.OperationalError as exc:
        db.close()
        log = Path(f"{path}-wal")
        if log.exists() and log.stat().st_size:
            raise InputError(
                f"Ledger {path} is in a read-only folder, and its newest rows are still in "
                f"{log.name}. Copy both files to a writable folder."
            ) from exc
        db = sqlite3.connect(f"{uri}?immutable=1", uri=True, isolation_level=None)
    return db


def check_is_ledger(db: sqlite3.Connection, path: Path) -> None:
    """Raise InputError for a database that is not a ledger of this version."""
    if not schema.is_ledger(db):
        raise InputError(f"{path} is a SQLite file but not a bridgekd ledger. Name another file.")
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
    """Raise InputError for a path on a network or shared file system, where WAL is unsafe."""
    import psutil  # imported late because readers do not need it

    mounts = [(p.mountpoint, p.fstype) for p in psutil.disk_partitions(all=True)]
    # realpath raises no error for a loop of links; opening the file does.
    file_system = find_file_system(Path(os.path.realpath(path)), mounts)
    if file_system.lower().startswith(_NETWORK_FILE_SYSTEMS):
        raise InputError(
            f"Ledger {path} is on a shared file system ({file_system}), where SQLite can lose paid "
            "answers. Name a file on a local disk (ledger: /var/tmp/ledger.db), and keep a copy "
            "with `bridgekd ledger export`."
        )


def find_file_system(path: Path, mounts: Iterable[tuple[str, str]]) -> str:
    """Return the file system of an absolute path; "" if no mount contains it.

    `mounts` has pairs (mount point, file system). Of two at one point, the later hides the earlier.
    """
    # max() keeps the first of equals, so the later mounts come first.
    containing = [mount for mount in reversed(list(mounts)) if path.is_relative_to(mount[0])]
    return max(containing, key=lambda mount: len(Path(mount[0]).parts), default=("", ""))[1]


class ReservedSpace:
    """Disk space that is reserved while a ledger is open, and freed for paid answers.

    Its file has no name: it replaces no file of a user, and it ends with the process.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._reserved = ExitStack()
        self.used = False

    def allocate(self) -> None:
        """Reserve the space."""
        unnamed = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115
        file = self._reserved.enter_context(unnamed)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, RESERVED_BYTES)
        else:
            file.write(bytes(RESERVED_BYTES))

    def free(self) -> bool:
        """Free the space. Return False if it was freed before."""
        if self.used:
            return False
        self.used = True
        self.close()
        return True

    def close(self) -> None:
        """Free the space if it is reserved."""
        self._reserved.close()


@contextmanager
def translate_sqlite_errors(path: Path) -> Iterator[None]:
    """Turn errors of SQLite and of the disk into an InputError with the next step."""
    try:
        yield
    except (sqlite3.OperationalError, OSError) as exc:
        text = str(exc)
        if "disk is full" in text or getattr(exc, "errno", None) in FULL_DISK_ERRORS:
            raise DiskFullError(
                f"Ledger {path}: {text}. The disk is full. All written rows are safe. Free some "
                "space and run the same command again."
            ) from exc
        advice = "Check the path, its permissions and the disk."
        if "is locked" in text:
            advice = "Close the other program that uses it and run the same command again."
        raise InputError(f"Ledger {path}: {text}. All written rows are safe. {advice}") from exc
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise  # a bug of this program, not a problem of the file
    except sqlite3.DatabaseError as exc:
        raise InputError(f"{path} is not a ledger ({exc}). Name another file.") from exc
