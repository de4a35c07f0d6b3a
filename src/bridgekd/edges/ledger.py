"""Every paid call, in one SQLite file that is written before money is spent.

The one idea: an attempt is a row from before its socket opens. It is reserved (at the most it can
cost, in the transaction that checks the hard stop), its raw response is recorded before anything
reads it, then it is settled. Kept true at any instant, also after a kill: the total held is at
least what the servers billed and never passes the hard stop; nothing is deleted; a key has at
most one final attempt.

    answered, truncated, refused   final for their key: recalled, never asked again
    failed                         the server said that it did not serve: costs nothing, may be
    asked again unknown                        may have been served; held at its reserve, may be
    asked again unparsable                     a response that is no chat completion; kept, held
    at its reserve
"""

import errno
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import filelock

from bridgekd.config import Price
from bridgekd.core.calls import call_key, canonical_json
from bridgekd.core.costs import dollars, prompt_token_bound
from bridgekd.core.replies import Bill, bill_of, read_reply
from bridgekd.edges import migrations
from bridgekd.errors import BadInput, HardStop, Overbilled
from bridgekd.records import Message

Purpose = Literal["train", "measure"]
FINAL = ("answered", "truncated", "refused")


@dataclass(frozen=True, slots=True)
class StoredCall:
    """A final attempt as the ledger remembers it."""

    attempt_id: int
    key: str
    state: str
    raw_response: str
    n_prompt_tokens: int
    n_completion_tokens: int
    cost_microusd: int


@dataclass(frozen=True, slots=True)
class SpendRow:
    """What the attempts of one run, purpose, model and state add up to.

    `held_microusd` is what they count for against the hard stop.
    """

    run: str
    purpose: str
    model: str
    state: str
    n_attempts: int
    n_prompt_tokens: int
    n_completion_tokens: int
    held_microusd: int


def spend(path: str | Path) -> tuple[SpendRow, ...]:
    """What the ledger at `path` holds by run, purpose, model and state; takes no lock.

    An empty tuple where there is no file yet.
    """
    path = Path(path)
    if not path.exists():
        return ()
    with _translated(path), closing(_open_to_read(path)) as db:
        _refuse_foreign(db, path)
        if migrations.version(db) == 0:  # made, but the process died before its tables were
            return ()
        rows = db.execute(
            """SELECT run, purpose, model, state, count(*), coalesce(sum(n_prompt_tokens), 0),
                      coalesce(sum(n_completion_tokens), 0), coalesce(sum(held_microusd), 0)
               FROM attempts GROUP BY run, purpose, model, state
               ORDER BY run, purpose, model, state"""
        ).fetchall()
    return tuple(SpendRow(*row) for row in rows)


class Ledger:
    """The open ledger, held by one writer at a time.

    Entering takes the lock (a second writer waits; `on_wait` gets one sentence about it), brings
    the file to the newest version and settles what a crashed process left open.
    `hard_stop_microusd` limits what all attempts in the file together may hold; None is no limit.
    """

    def __init__(
        self,
        path: str | Path,
        hard_stop_microusd: int | None = None,
        *,
        on_wait: Callable[[str], None] = lambda note: None,
    ) -> None:
        self.path = Path(path)
        self.hard_stop_microusd = hard_stop_microusd
        self.n_recovered = 0
        self._on_wait = on_wait
        self._lock = filelock.FileLock(f"{self.path}.lock", thread_local=False)
        self._connection: sqlite3.Connection | None = None

    def __enter__(self) -> "Ledger":
        with _translated(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.is_dir():
                raise BadInput(
                    f"{self.path} is a folder, not a ledger; name a file for the ledger."
                )
            self._take_lock()
            try:
                self._connection = _open_to_write(self.path)
                self.n_recovered = self.recover()
            except BaseException:
                self._close()
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def recall(self, key: str) -> StoredCall | None:
        """The final attempt at a call, if there is one: it is never to be asked again."""
        with _translated(self.path):
            row = self._db.execute(
                """SELECT id, key, state, coalesce(raw_response, ''), n_prompt_tokens,
                          n_completion_tokens, cost_microusd
                   FROM attempts WHERE key = ? AND state IN ('answered', 'truncated', 'refused')""",
                (key,),
            ).fetchone()
        return StoredCall(*row) if row else None

    def reserve(
        self, request: Mapping[str, Any], *, run: str, purpose: Purpose, reserve_microusd: int
    ) -> int:
        """Opens an attempt and returns its id; from here on it counts for `reserve_microusd`.

        Raises HardStop, and writes nothing, where the hard stop does not admit it.
        """
        with self._transaction():
            held = self._held()
            limit = self.hard_stop_microusd
            if limit is not None and held + reserve_microusd > limit:
                raise HardStop(
                    f"The hard stop of {dollars(limit)} does not admit the next call: {self.path} "
                    f"holds {dollars(held)} and the call may take {dollars(reserve_microusd)}. "
                    f"All answers are saved; raise hard_stop_usd and run the same command again."
                )
            cursor = self._db.execute(
                """INSERT INTO attempts (key, run, purpose, provider, model, request, state,
                                         reserve_microusd, created_at)
                   VALUES (?, ?, ?, ?, ?, ?, 'reserved', ?, ?)""",
                (
                    call_key(request),
                    run,
                    purpose,
                    str(request["provider"]),
                    str(request["model"]),
                    canonical_json(dict(request)),
                    reserve_microusd,
                    _now(),
                ),
            )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def record(
        self,
        attempt_id: int,
        raw_response: str,
        *,
        price: Price | None,
        request_id: str | None = None,
    ) -> None:
        """Writes what came back, unread, with the price that will be applied to it."""
        with self._transaction():
            self._update(
                attempt_id,
                raw_response=raw_response,
                price=None if price is None else canonical_json(price.model_dump()),
                request_id=request_id,
            )

    def settle(self, attempt_id: int, state: str, bill: Bill) -> None:
        """Turns a reservation into a final state and its bill.

        A bill above the reserve is written all the same, then raised as Overbilled: no limit can
        be kept with a server that does this.
        """
        if state not in FINAL:
            raise ValueError(f"{state!r} is not a final state; use release")
        with self._transaction():
            reserve, model = self._reserve_of(attempt_id)
            self._settle(attempt_id, state, bill)
        if bill.cost_microusd > reserve:
            raise Overbilled(
                f"An answer of {model} was billed {dollars(bill.cost_microusd)}, but by price and "
                f"max_tokens it could cost {dollars(reserve)} at most, so no limit can be kept. It "
                f"is saved in {self.path}; mend teacher.price or use another server."
            )

    def release(
        self, attempt_id: int, state: Literal["failed", "unknown", "unparsable"] = "failed"
    ) -> None:
        """Ends an attempt without an answer: failed costs nothing, the others stay held."""
        with self._transaction():
            self._update(attempt_id, state=state, settled_at=_now())

    def recover(self) -> int:
        """Closes what a crashed process left open and returns how many attempts that were.

        The lock says that no living process owns them. A response that had been recorded is
        settled by what it says; all others may or may not have been served and become unknown.
        """
        with self._transaction():
            open_attempts = self._db.execute(
                """SELECT id, key, request, raw_response, price, reserve_microusd
                   FROM attempts WHERE state = 'reserved' ORDER BY id"""
            ).fetchall()
            for attempt_id, key, request, raw, price, reserve in open_attempts:
                reply = read_reply(raw) if raw is not None else None
                if reply is None or (reply.state in FINAL and self.recall(key)):
                    self._update(attempt_id, state="unknown", settled_at=_now())
                elif reply.state not in FINAL:
                    self._update(attempt_id, state=reply.state, settled_at=_now())
                else:
                    known = Price.model_validate_json(price) if price else None
                    bill = bill_of(reply, known, most=_most(json.loads(request), reserve))
                    self._settle(attempt_id, reply.state, bill)
        return len(open_attempts)

    def held_microusd(self) -> int:
        """What all attempts together count for against the hard stop."""
        with _translated(self.path):
            return self._held()

    @property
    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            raise ValueError("the ledger is not open; use it in a with statement")
        return self._connection

    def _held(self) -> int:
        return int(self._db.execute("SELECT held_microusd FROM totals").fetchone()[0])

    def _reserve_of(self, attempt_id: int) -> tuple[int, str]:
        row = self._db.execute(
            "SELECT reserve_microusd, model FROM attempts WHERE id = ?", (attempt_id,)
        ).fetchone()
        if row is None:
            raise ValueError(f"no attempt {attempt_id} in {self.path}")
        return int(row[0]), str(row[1])

    def _settle(self, attempt_id: int, state: str, bill: Bill) -> None:
        self._update(
            attempt_id,
            state=state,
            n_prompt_tokens=bill.n_prompt_tokens,
            n_completion_tokens=bill.n_completion_tokens,
            cost_microusd=bill.cost_microusd,
            settled_at=_now(),
        )

    def _update(self, attempt_id: int, **columns: object) -> None:
        """Changes an open attempt; what is settled is never changed."""
        names = ", ".join(f"{name} = ?" for name in columns)
        cursor = self._db.execute(
            f"UPDATE attempts SET {names} WHERE id = ? AND state = 'reserved'",
            (*columns.values(), attempt_id),
        )
        if cursor.rowcount != 1:
            raise ValueError(f"attempt {attempt_id} in {self.path} is not open")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """One durable IMMEDIATE transaction: all of it or, on any exception, nothing."""
        db = self._db
        with _translated(self.path):
            db.execute("BEGIN IMMEDIATE")
            try:
                yield
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")

    def _take_lock(self) -> None:
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            self._on_wait(f"Another process is writing to {self.path}; waiting until it is done.")
            self._lock.acquire()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._lock.release()


def _most(request: Mapping[str, Any], reserve_microusd: int) -> Bill:
    """What was reserved for a stored request, as a bill."""
    messages = [Message(m["role"], m["content"]) for m in request["messages"]]
    return Bill(prompt_token_bound(messages), int(request["max_tokens"]), reserve_microusd)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _open_to_write(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        _refuse_foreign(db, path)
        db.execute("PRAGMA busy_timeout = 10000")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        migrations.migrate(db)
    except BaseException:
        db.close()
        raise
    return db


def _open_to_read(path: Path) -> sqlite3.Connection:
    """A reading connection; where WAL's side files cannot be made, the file as it lies."""
    uri = path.resolve().as_uri()
    db = sqlite3.connect(f"{uri}?mode=ro", uri=True, isolation_level=None)
    try:
        db.execute("PRAGMA user_version").fetchone()
    except sqlite3.OperationalError:
        db.close()
        db = sqlite3.connect(f"{uri}?immutable=1", uri=True, isolation_level=None)
    return db


def _refuse_foreign(db: sqlite3.Connection, path: Path) -> None:
    if not migrations.is_ledger(db):
        raise BadInput(
            f"{path} is a SQLite file but not a bridgekd ledger; name another file for the ledger."
        )
    if migrations.version(db) > len(migrations.MIGRATIONS):
        raise BadInput(
            f"{path} was written by a newer bridgekd (file version {migrations.version(db)}, "
            f"this one knows {len(migrations.MIGRATIONS)}); update bridgekd."
        )


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turns what SQLite and the disk say into one sentence with the file and the next step."""
    try:
        yield
    except (sqlite3.OperationalError, OSError) as exc:
        text = str(exc)
        if "disk is full" in text or getattr(exc, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            advice = "the disk is full; free some space and run the same command again"
        elif "is locked" in text:
            advice = "another program holds it; close that program and run the same command again"
        else:
            advice = (
                "it cannot be read or written there; check the path, its permissions and the disk"
            )
        raise BadInput(f"Ledger {path}: {text}; {advice}. What was written is safe.") from exc
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise  # a fault of this program, not of the file
    except sqlite3.DatabaseError as exc:
        raise BadInput(
            f"{path} is not a ledger ({exc}); name another file or put the right one back."
        ) from exc
