"""Every paid request, in one SQLite file that is written before money is spent.

An attempt is a row before its socket opens. It is reserved at its maximum cost, in the transaction
that checks the hard limit. Its raw response is recorded before anything parses it. Then the attempt
is settled. At any time, also after a kill: the reserved total is at least what the servers billed
and never passes the hard limit, nothing is deleted, and a key has at most one final attempt.

    answered, truncated, refused   final for their key: reused, never requested again. Refused is
                 also a request that failed each time while others were answered
    failed       the server reported that it did not serve the request: free, may be sent again
    unknown      may have been served: counts at its reserve, may be sent again
    unparsable   the response is not a chat completion: kept, counts at its reserve
"""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
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
from bridgekd.ledger.open_file import OpenLedgerFile
from bridgekd.ledger.sql import OpenBatch, StoredAnswer
from bridgekd.recipe import Price

Purpose = Literal["train", "measure"]


class Ledger:
    """An open ledger. One process writes to it at a time.

    On entry it takes the lock, creates the file if there is none, and closes the attempts that a
    killed process left open. A second writer waits, and `on_wait` gets a message about it.
    `hard_limit_microusd` limits the reserved total of all attempts in the file. None: no limit.

    Writing uses one connection, one caller at a time. Reading uses another connection that sees
    only durable rows, so another thread can read at the same time.

    >>> import bridgekd
    >>> with bridgekd.Ledger("ledger.db", hard_limit_microusd=5_000_000) as ledger:
    ...     ledger.reserved_microusd()
    0
    """

    def __init__(
        self,
        path: str | Path,
        hard_limit_microusd: int | None = None,
        *,
        on_wait: Callable[[str], None] = lambda note: None,
    ) -> None:
        self.path = Path(path)
        self.hard_limit_microusd = hard_limit_microusd
        self._on_wait = on_wait
        self._lock = filelock.FileLock(f"{self.path}.lock", thread_local=False)
        self._spare = ReservedSpace(self.path.parent)
        self._file: OpenLedgerFile | None = None
        self._connections: tuple[sqlite3.Connection, ...] = ()  # to write, to read

    def __enter__(self) -> "Ledger":
        with translate_sqlite_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.is_dir():
                raise InputError(f"Ledger {self.path} is a folder. Name a file.")
            check_local_disk(self.path)
            self._take_lock()
            try:
                self._file = self._open_file()
                self._spare.allocate()
                self._connections = (open_for_writing(self.path),)
                self._connections += (open_for_reading(self.path),)
                self.recover()
                self._file.remember()
            except BaseException:
                self._close()
                raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        try:
            if self._file is not None and exc_info[0] is None:
                self._file.check_in_place()
        finally:
            self._close()

    def find_answer(self, key: str) -> StoredAnswer | None:
        """Return the final attempt of a key, or None. A key with one is never requested again."""
        with translate_sqlite_errors(self.path):
            return sql.find_final_attempt(self._connection("read"), key)

    def has_answer(self, attempt_id: int) -> bool:
        """Return whether the key of an attempt has a final attempt."""
        with translate_sqlite_errors(self.path):
            db = self._connection("write")
            key = db.execute("SELECT key FROM attempts WHERE id = ?", (attempt_id,)).fetchone()
            return key is not None and sql.find_final_attempt(db, key[0]) is not None

    def count_attempts(self, key: str) -> int:
        """Return how many attempts a key has, open ones included."""
        with translate_sqlite_errors(self.path):
            db = self._connection("read")
            sql_count = "SELECT count(*) FROM attempts WHERE key = ?"
            return int(db.execute(sql_count, (key,)).fetchone()[0])

    def reserved_microusd(self) -> int:
        """Return what all attempts together count against the hard limit, in micro-dollars."""
        with translate_sqlite_errors(self.path):
            return sql.sum_reserved(self._connection("read"))

    def reserve(
        self, request: Mapping[str, Any], *, run: str, purpose: Purpose, reserve_microusd: int
    ) -> int:
        """Open an attempt that counts at `reserve_microusd`, and return its id.

        Raises HardLimitError, and writes nothing, if the hard limit does not allow it. Raises
        InputError if the ledger's file was removed, moved or replaced.
        """
        if self._file is not None:
            self._file.check_in_place()
        if self._spare.used:
            # Not a DiskFullError, which would also undo the other works of this transaction.
            raise InputError(
                f"Ledger {self.path}: the disk is full. All answers are saved. Free some space and "
                "run the same command again."
            )
        with self._begin() as db:
            reserved, limit = sql.sum_reserved(db), self.hard_limit_microusd
            if limit is not None and reserved + reserve_microusd > limit:
                raise HardLimitError(
                    f"The hard limit of {format_microusd(limit)} does not allow the next request: "
                    f"{self.path} counts {format_microusd(reserved)}, and the request may cost "
                    f"{format_microusd(reserve_microusd)}. All answers are saved. Raise "
                    "hard_limit_usd and run the same command again."
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
        """Write the raw response and its price. None keeps the price of the attempt's batch."""
        columns = {} if price is None else {"price": sql.dump_price(price)}
        with self._begin() as db:
            sql.update_attempt(
                db, attempt_id, raw_response=raw_response, request_id=request_id, **columns
            )

    def settle(self, attempt_id: int, state: str, cost: RequestCost) -> None:
        """Close an attempt with a final state and its cost.

        Raises OverbilledError, after writing, if the cost is above the reserve: no limit can be
        kept with such a server.
        """
        if state not in sql.FINAL_STATES:
            raise ValueError(f"{state!r} is not a final state. Use release.")
        with self._begin() as db:
            sql.close_attempt(db, attempt_id, state, cost)
            reserve, model = db.execute(
                "SELECT reserve_microusd, model FROM attempts WHERE id = ?", (attempt_id,)
            ).fetchone()
        if cost.cost_microusd > reserve:
            raise OverbilledError(
                f"An answer of {model} was billed {format_microusd(cost.cost_microusd)}. By price "
                f"and max_tokens it costs at most {format_microusd(reserve)}, so no limit can be "
                f"kept. The answer is saved in {self.path}. Fix teacher.price or use another "
                "server."
            )

    def release(
        self, attempt_id: int, state: Literal["failed", "unknown", "unparsable"] = "failed"
    ) -> None:
        """Close an attempt without an answer. Only `failed` is free."""
        with self._begin() as db:
            sql.close_attempt(db, attempt_id, state)

    def recover(self) -> int:
        """Close the attempts that a killed process left open, and return their number.

        No running process owns them, because this one has the lock.
        """
        with self._begin() as db:
            return sql.close_abandoned(db)

    def settle_batch(self, token: str) -> None:
        """Settle the open attempts of one batch that have a recorded response."""
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
        """Add an answer that was paid for elsewhere. Return False if its key has a final attempt.

        It is reused and charged to a run like any other answer, but does not count against the hard
        limit. cost_microusd: its cost, if price and usage do not determine it. refused: the server
        rejected the request, which is free, and the response is not a chat completion.
        """
        reply = parse_completion(raw_response or "")
        if reply.state not in sql.FINAL_STATES and not refused:
            raise ValueError("The response is not a chat completion.")
        max_cost = compute_max_imported_cost(request, reply, price, cost_microusd)
        state, cost = reply.state, compute_imported_cost(reply, price, max_cost=max_cost)
        if refused:
            state, cost = "refused", RequestCost()
        with self._begin() as db:
            if sql.find_final_attempt(db, compute_request_key(request)):
                return False
            attempt_id = sql.insert_attempt(db, request, run, purpose, max_cost.cost_microusd)
            stored_price = sql.dump_price(price)
            sql.update_attempt(
                db, attempt_id, raw_response=raw_response, price=stored_price, imported=1
            )
            sql.close_attempt(db, attempt_id, state, cost)
        return True

    def join_batch(
        self, token: str, keys: Sequence[str], *, provider: str, host: str, price: Price | None
    ) -> None:
        """Add a batch, with the open attempts of these keys, before it is created on the server."""
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
                raise ValueError(
                    f"Of {len(keys)} requests for a batch, {cursor.rowcount} are open."
                )

    def set_batch_id(self, token: str, remote_id: str) -> None:
        """Write the server's id of a batch. Write "" before the server is asked to create it.

        From then on, the batch may exist on the server even if this process is killed.
        """
        with self._begin() as db:
            db.execute("UPDATE batches SET remote_id = ? WHERE token = ?", (remote_id, token))

    def open_batches(self) -> tuple[OpenBatch, ...]:
        """Return the batches with open attempts, oldest first."""
        with translate_sqlite_errors(self.path):
            return sql.find_open_batches(self._connection("write"))

    def run_in_transaction(self, works: Sequence[Callable[[], Any]]) -> list[Any]:
        """Call several writing methods in one durable transaction.

        Return the result of each, or the exception that it raised, which undoes this call alone. If
        the disk is full, the reserved space is freed and all of them are called again.
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
        """Run the block in a durable transaction, or in a savepoint of the open one.

        An exception undoes the block.
        """
        db = self._connection("write")
        begin, end, undo = "BEGIN IMMEDIATE", "COMMIT", ["ROLLBACK"]
        if db.in_transaction:
            begin, end = "SAVEPOINT part", "RELEASE part"
            undo = ["ROLLBACK TO part", end]
        with translate_sqlite_errors(self.path):
            db.execute(begin)
            try:
                yield db
                db.execute(end)
            except BaseException:
                if db.in_transaction:  # some disk errors end the whole transaction
                    for statement in undo:
                        db.execute(statement)
                raise

    def _connection(self, use: Literal["write", "read"]) -> sqlite3.Connection:
        if not self._connections:
            raise ValueError("The ledger is not open. Use it in a with statement.")
        return self._connections[0 if use == "write" else 1]

    def _take_lock(self) -> None:
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            self._note_wait()
            self._lock.acquire()

    def _open_file(self) -> OpenLedgerFile:
        """Open and lock the file itself: its lock file may be another one than a writer's."""
        file = OpenLedgerFile(self.path)
        try:
            if not file.try_lock():
                self._note_wait()
                file.try_lock(wait=True)
        except BaseException:
            file.close()
            raise
        return file

    def _note_wait(self) -> None:
        self._on_wait(f"Another process is writing to {self.path}; waiting until it is done.")

    def _close(self) -> None:
        connections, self._connections = self._connections, ()
        file, self._file = self._file, None
        try:
            if file is not None and connections:
                with translate_sqlite_errors(self.path):
                    file.save_rows(connections[0])
        finally:
            for connection in reversed(connections):  # the writer last: it removes the log
                connection.close()
            if file is not None:
                file.close()
            self._spare.close()
            self._lock.release()
