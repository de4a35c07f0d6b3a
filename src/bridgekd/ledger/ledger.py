"""Every paid call, in one SQLite file that is written before money is spent.

The one idea: an attempt is a row from before its socket opens. It is reserved (at the most it can
cost, in the transaction that checks the hard stop), its raw response is recorded before anything
reads it, then it is settled. Kept true at any instant, also after a kill: the total held is at
least what the servers billed and never passes the hard stop; nothing is deleted; a key has at
most one final attempt.

    answered, truncated, refused   final for their key: recalled, never asked again
    failed       the server said that it did not serve: costs nothing, may be asked again
    unknown      may have been served; held at its reserve, may be asked again
    unparsable   a response that is no chat completion; kept, held at its reserve
"""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import filelock

from bridgekd.api_client.chat_completion import RequestCost, parse_completion
from bridgekd.api_client.request_key import compute_request_key
from bridgekd.cost.request_cost import format_microusd
from bridgekd.errors import (
    BridgekdError,
    DiskFullError,
    HardLimitError,
    InputError,
    OverbilledError,
)
from bridgekd.ledger import sql
from bridgekd.ledger.database import (
    ReservedSpace,
    check_local_disk,
    open_for_reading,
    open_for_writing,
    translate_sqlite_errors,
)
from bridgekd.ledger.imported_request import compute_imported_cost, compute_max_imported_cost
from bridgekd.ledger.sql import OpenBatch, StoredAnswer
from bridgekd.recipe import Price

Purpose = Literal["train", "measure"]


class Ledger:
    """The open ledger, held by one writer at a time.

    Entering takes the lock (a second writer waits; `on_wait` gets one sentence about it), makes the
    file if there is none, and settles what a crashed process left open.
    `hard_stop_microusd` limits what all attempts in the file together may hold; None is no limit.

    Writing goes through one connection, one caller at a time; recalling through another, which
    sees what is durable and nothing else, so that it may go on meanwhile in another thread.
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
        self._on_wait = on_wait
        self._lock = filelock.FileLock(f"{self.path}.lock", thread_local=False)
        self._spare = ReservedSpace(self.path)
        self._connections: tuple[sqlite3.Connection, ...] = ()  # to write, to read

    def __enter__(self) -> "Ledger":
        with translate_sqlite_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.is_dir():
                raise InputError(
                    f"{self.path} is a folder, not a ledger; name a file for the ledger."
                )
            check_local_disk(self.path)
            self._take_lock()
            try:
                self._spare.allocate()
                self._connections = (open_for_writing(self.path),)
                self._connections += (open_for_reading(self.path),)
                self.recover()
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

    def find_answer(self, key: str) -> StoredAnswer | None:
        """The final attempt at a call, if there is one: it is never to be asked again."""
        with translate_sqlite_errors(self.path):
            return sql.find_final_attempt(self._connection("read"), key)

    def has_answer(self, attempt_id: int) -> bool:
        """Whether the key of an attempt has a final one already."""
        with translate_sqlite_errors(self.path):
            db = self._connection("write")
            key = db.execute("SELECT key FROM attempts WHERE id = ?", (attempt_id,)).fetchone()
            return key is not None and sql.find_final_attempt(db, key[0]) is not None

    def reserved_microusd(self) -> int:
        """What all attempts together count for against the hard stop."""
        with translate_sqlite_errors(self.path):
            return sql.sum_reserved(self._connection("read"))

    def reserve(
        self, request: Mapping[str, Any], *, run: str, purpose: Purpose, reserve_microusd: int
    ) -> int:
        """Opens an attempt and returns its id; from here on it counts for `reserve_microusd`.

        Raises HardLimitError, and writes nothing, where the hard stop does not admit it.
        """
        if self._spare.used:
            raise InputError(  # of this piece alone: what else is in its group finds room
                f"Ledger {self.path}: the disk is full; what was paid for is saved; free some "
                f"space and run the same command again."
            )
        with self._begin() as db:
            held, limit = sql.sum_reserved(db), self.hard_stop_microusd
            if limit is not None and held + reserve_microusd > limit:
                raise HardLimitError(
                    f"The hard stop of {format_microusd(limit)} does not admit the next call: "
                    f"{self.path} "
                    f"holds {format_microusd(held)} and the call may take "
                    f"{format_microusd(reserve_microusd)}. "
                    f"All answers are saved; raise hard_limit_usd and run the same command again."
                )
            return sql.insert_attempt(db, request, run, purpose, reserve_microusd)

    def record(
        self,
        attempt_id: int,
        raw_response: str,
        *,
        price: Price | None,
        request_id: str | None = None,
    ) -> None:
        """Writes what came back, unread, with the price that will be applied to it; None leaves
        the price that its batch was sent with.
        """
        known = {} if price is None else {"price": sql.dump_price(price)}
        with self._begin() as db:
            sql.update_attempt(
                db, attempt_id, raw_response=raw_response, request_id=request_id, **known
            )

    def settle(self, attempt_id: int, state: str, bill: RequestCost) -> None:
        """Turns a reservation into a final state and its bill.

        A bill above the reserve is written all the same, then raised as OverbilledError: no limit
        can be kept with a server that does this.
        """
        if state not in sql.FINAL_STATES:
            raise ValueError(f"{state!r} is not a final state; use release")
        with self._begin() as db:
            reserve, model = sql.get_reserve(db, attempt_id)
            sql.settle_attempt(db, attempt_id, state, bill)
        if bill.cost_microusd > reserve:
            raise OverbilledError(
                f"An answer of {model} was billed {format_microusd(bill.cost_microusd)}, but by "
                "price and "
                f"max_tokens it could cost {format_microusd(reserve)} at most, so no limit can be "
                "kept. It "
                f"is saved in {self.path}; mend teacher.price or use another server."
            )

    def release(
        self, attempt_id: int, state: Literal["failed", "unknown", "unparsable"] = "failed"
    ) -> None:
        """Ends an attempt without an answer: failed costs nothing, the others stay held."""
        with self._begin() as db:
            sql.update_attempt(db, attempt_id, state=state, settled_at=sql.get_utc_now())

    def recover(self) -> int:
        """Closes what a crashed process left open and returns how many attempts that were.

        The lock says that no living process owns them. A response that had been recorded is
        settled by what it says; a batch that nobody was asked to make failed, and one that may
        have been made goes on without us; all others may have been served and become unknown.
        """
        with self._begin() as db:
            return sql.close_abandoned(db)

    def settle_batch(self, token: str) -> None:
        """Settles what was recorded for the open attempts of one batch by what it says."""
        with self._begin() as db:
            sql.close_abandoned(db, token)

    def import_answer(
        self,
        request: Mapping[str, Any],
        raw_response: str | None,
        *,
        price: Price | None,
        run: str,
        purpose: Purpose = "train",
        cost_microusd: int | None = None,
        refused: bool = False,
    ) -> bool:
        """Adds an answer that was paid for elsewhere: it is recalled and charged to a run like any
        other, but holds nothing of the hard stop. False where its key has a final attempt already.

        `cost_microusd` is what it cost, where price and usage cannot say it. `refused` is a request
        that the server did not take: free, and its response is none or no chat completion.
        """
        reply = parse_completion(raw_response or "")
        if reply.state not in sql.FINAL_STATES and not refused:
            raise ValueError("the response is no chat completion")
        most = compute_max_imported_cost(request, reply, price, cost_microusd)
        state, bill = reply.state, compute_imported_cost(reply, price, max_cost=most)
        if refused:
            state, bill = "refused", RequestCost()
        with self._begin() as db:
            if sql.find_final_attempt(db, compute_request_key(request)):
                return False
            attempt_id = sql.insert_attempt(db, request, run, purpose, most.cost_microusd)
            sql.update_attempt(
                db,
                attempt_id,
                raw_response=raw_response,
                price=sql.dump_price(price),
                imported=1,
            )
            sql.settle_attempt(db, attempt_id, state, bill)
        return True

    def join_batch(
        self, token: str, keys: Sequence[str], *, provider: str, host: str, price: Price | None
    ) -> None:
        """Puts the open attempts of some keys into a batch that is to be made."""
        with self._begin() as db:
            db.execute(
                "INSERT INTO batches VALUES (?, ?, ?, NULL, ?)",
                (token, provider, host, sql.get_utc_now()),
            )
            cursor = db.executemany(
                "UPDATE attempts SET batch = ?, price = ? WHERE key = ? AND state = 'reserved'",
                [(token, sql.dump_price(price), key) for key in keys],
            )
            if cursor.rowcount != len(keys):
                raise ValueError(f"of {len(keys)} calls for a batch {cursor.rowcount} are open")

    def set_batch_id(self, token: str, remote_id: str) -> None:
        """Writes what the server calls a batch; "" before it is asked to make it, so that from here
        on a crash leaves a batch that may be there.
        """
        with self._begin() as db:
            db.execute("UPDATE batches SET remote_id = ? WHERE token = ?", (remote_id, token))

    def open_batches(self) -> tuple[OpenBatch, ...]:
        """The batches with attempts that are still open, oldest first."""
        with translate_sqlite_errors(self.path):
            return sql.find_open_batches(self._connection("write"))

    def run_in_transaction(self, works: Sequence[Callable[[], Any]]) -> list[Any]:
        """Carries out several pieces of writing, each one call of a method, in one durable
        transaction.

        Returns what each returned, or the exception that it raised, which undoes it alone. Should
        the disk be full, the space set aside is given up and all is done once more.
        """
        try:
            return self._commit_group(works)
        except DiskFullError:
            if not self._spare.free():
                raise
            return self._commit_group(works)

    def _commit_group(self, works: Sequence[Callable[[], Any]]) -> list[Any]:
        outcomes: list[Any] = []
        with self._begin():
            for work in works:
                try:
                    outcomes.append(work())
                except DiskFullError:
                    raise
                except (BridgekdError, ValueError, sqlite3.IntegrityError) as exc:
                    outcomes.append(exc)
        return outcomes

    @contextmanager
    def _begin(self) -> Iterator[sqlite3.Connection]:
        """One durable IMMEDIATE transaction, or a part of the one that is open: all of it or, on
        any exception, nothing.
        """
        db = self._connection("write")
        part = db.in_transaction
        begin, end = ("SAVEPOINT part", "RELEASE part") if part else ("BEGIN IMMEDIATE", "COMMIT")
        undo = ("ROLLBACK TO part", end) if part else ("ROLLBACK",)
        with translate_sqlite_errors(self.path):
            db.execute(begin)
            try:
                yield db
                db.execute(end)
            except BaseException:
                if db.in_transaction:  # some errors of the disk undo everything by themselves
                    for statement in undo:
                        db.execute(statement)
                raise

    def _connection(self, use: Literal["write", "read"]) -> sqlite3.Connection:
        if not self._connections:
            raise ValueError("the ledger is not open; use it in a with statement")
        return self._connections[0 if use == "write" else 1]

    def _take_lock(self) -> None:
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            self._on_wait(f"Another process is writing to {self.path}; waiting until it is done.")
            self._lock.acquire()

    def _close(self) -> None:
        connections, self._connections = self._connections, ()
        for connection in reversed(connections):  # the writer last: it clears the log away
            connection.close()
        self._spare.delete()
        self._lock.release()
