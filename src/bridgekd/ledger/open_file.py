"""The ledger's file as this process opened it: locked, and compared with what its path names now.

The lock beside the ledger can be removed together with it, so the file itself is locked, too. If a
user removes, moves or replaces one of the files, SQLite goes on with the old ones without a word.
"""

import os
import sqlite3
from pathlib import Path

from bridgekd.errors import InputError

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be removed
    fcntl = None  # type: ignore[assignment]

# SQLite locks bytes near 2^30 of the same file: https://sqlite.org/lockingv3.html
_LOCKED_BYTE = 1 << 62
_Identity = tuple[int, int]


class OpenLedgerFile:
    """A ledger's file. It is created if there is none, for its owner only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._identities: dict[Path, _Identity | None] = {}

    def try_lock(self, *, wait: bool = False) -> bool:
        """Lock the file. Return False if another process has locked it, unless `wait`."""
        if fcntl is not None:
            try:
                mode = fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB
                fcntl.lockf(self._descriptor, mode, 1, _LOCKED_BYTE)
            except BlockingIOError:
                return False
        return True

    def remember(self) -> None:
        """Remember the files at the ledger's path and beside it, after SQLite has opened them."""
        status = os.fstat(self._descriptor)
        self._identities = {self.path: (status.st_dev, status.st_ino)}
        database = self.path.resolve()  # SQLite's own files are beside the target of a link
        for file in (f"{database}-wal", f"{database}-shm", f"{self.path}.lock"):
            self._identities[Path(file)] = _identify(Path(file))

    def find_missing(self) -> Path | None:
        """Return the first file that was removed, moved or replaced; None if all are in place."""
        files = self._identities.items()
        return next((file for file, identity in files if _identify(file) != identity), None)

    def check_in_place(self) -> None:
        """Raise InputError with the next step if a file was removed, moved or replaced."""
        missing = self.find_missing()
        if missing is None:
            return
        was = f"{missing} was removed, moved or replaced while this process wrote to the ledger"
        if missing != self.path:
            advice = f"All rows are safe in {self.path}. Run the same command again."
        elif copy := self._get_copy():
            advice = (
                f"All rows, with the answers that still arrive, are saved in {copy}. Rename it to "
                f"{self.path.name} (or import its export into the new ledger) and run the same "
                "command again."
            )
        else:
            advice = "All rows are in the file that was moved. Move it back and run the command."
        raise InputError(f"{was}. No further request was sent. {advice}")

    def save_rows(self, db: sqlite3.Connection) -> None:
        """Save all rows if the file at the path is another one now. Call it before closing.

        A moved file gets the rows of its log, which stayed behind. A removed one gets a copy.
        """
        if self.find_missing() is None:
            return
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        if copy := self._get_copy():
            os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            db.execute("VACUUM INTO ?", (str(copy),))

    def close(self) -> None:
        """Release the lock. SQLite's connections to the file must be closed before."""
        os.close(self._descriptor)

    def _get_copy(self) -> Path | None:
        """Return where the rows of a removed file are saved; None if it still has a name."""
        status = os.fstat(self._descriptor)
        if status.st_nlink:
            return None
        return self.path.with_name(f"{self.path.name}.saved-{status.st_ino}")


def _identify(file: Path) -> _Identity | None:
    """Return what tells a file from another one of the same name; None if there is none."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
