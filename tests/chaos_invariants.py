"""The witnesses of the chaos test: one in the teacher's server, one that reads the ledger's file.

The one idea: nothing that is asserted comes from the word of the process that is killed. The server
writes down what arrived and what was answered, life by life (each life signs with a key of its
own), and the ledger is read as a SQLite file, not through the class under test.
"""

import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from bridgekd.api_client.request_key import compute_request_key, get_payload
from bridgekd.sandbox.teacher_server import HttpAnswer, TeacherServer, hash_body
from chaos_process import PROVIDER, ProcessTask

FINAL = ("answered", "truncated", "refused")
HELD_AT_RESERVE = ("reserved", "unknown", "unparsable")
COLUMNS = (
    "id", "key", "run", "purpose", "model", "request", "state", "reserve_microusd",
    "cost_microusd", "n_prompt_tokens", "n_completion_tokens", "raw_response", "created_at",
    "settled_at",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Attempt:
    """A row of the ledger, as it lies in the file."""

    id: int
    key: str
    run: str
    purpose: str
    model: str
    request: str
    state: str
    reserve_microusd: int
    cost_microusd: int | None
    n_prompt_tokens: int | None
    n_completion_tokens: int | None
    raw_response: str | None
    created_at: str
    settled_at: str | None

    @property
    def name(self) -> str:
        """What the server calls this request."""
        return hash_body(get_payload(json.loads(self.request)))

    @property
    def held(self) -> int:
        """What it counts for against the hard stop, by the rule and not by the file's word."""
        at_reserve = self.state in HELD_AT_RESERVE
        return self.reserve_microusd if at_reserve else self.cost_microusd or 0

    @property
    def arrived(self) -> bool:
        """Whether the ledger has an answer that nobody may ask for again, settled or not."""
        is_answer = self.raw_response is not None and '"choices"' in self.raw_response
        return self.state in FINAL or (self.state == "reserved" and is_answer)


def open_file(path: Path) -> sqlite3.Connection:
    """A ledger to read while someone else may be writing it."""
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)


def has_tables(path: Path) -> bool:
    """Whether a ledger was made so far. Before there are tables its file is switched from journals
    to WAL, and who may only read cannot read a file whose journal was left by a kill.
    """
    if not path.exists() or path.with_name(f"{path.name}-journal").exists():
        return False
    with closing(open_file(path)) as db:
        return bool(db.execute("SELECT 1 FROM sqlite_master WHERE name = 'totals'").fetchone())


def query(path: Path, query: str, *values: object) -> list[tuple]:
    """Rows of a ledger; none while it has no tables."""
    if not has_tables(path):
        return []
    with closing(open_file(path)) as db:
        return db.execute(query, values).fetchall()


def attempts(path: Path) -> tuple[Attempt, ...]:
    rows = query(path, f"SELECT {', '.join(COLUMNS)} FROM attempts ORDER BY id")
    return tuple(Attempt(*row) for row in rows)


def read_total_reserved(path: Path) -> int:
    """The total that the ledger keeps for its hard stop."""
    return sum(held for (held,) in query(path, "SELECT held_microusd FROM totals"))


class ServerMonitor:
    """The witness in the server, and the hand that kills at instants only a server can see.

    `wrongs` are sentences about what must not be: each arrival must find its row written, each
    bill its money held, and the hard stop kept, while the buyer is running.
    """

    def __init__(self, server: TeacherServer, path: Path) -> None:
        self.arrived: list[tuple[int, str]] = []  # life and name, in order
        self.answered: list[tuple[int, str]] = []  # with an answer, or refused for good
        self.dropped: Counter[str] = Counter()
        self.wrongs: list[str] = []
        self._server, self._path = server, path
        self._complete = server.complete
        server.complete = self._witness
        self._lock = threading.Lock()
        self._silent = threading.Condition(self._lock)
        self._life, self._kind, self._left = 0, "", 0
        self._stop: int | None = None
        self._n_busy = 0  # calls of this life that are being answered
        self._kill: Callable[[], None] = lambda: None

    def arm(self, order: ProcessTask, kind: str, n: int, kill: Callable[[], None]) -> None:
        """From here on the life of this order counts, and the n-th instant of its kind is due."""
        with self._lock:
            self._life, self._stop, self._kind, self._left = order.life, order.stop, kind, n
            self._kill, self._n_busy = kill, 0

    def disarm(self) -> None:
        """Ends the silence, and kills nobody any more."""
        with self._lock:
            self._kind = ""
            self._silent.notify_all()

    def is_due(self) -> bool:
        """Whether the instant has come; for "quiet": so many are answered, and no more will be."""
        with self._lock:
            return self._left <= 0 and (self._kind != "quiet" or not self._n_busy)

    def names_answered(self, life: int) -> set[str]:
        with self._lock:
            return {name for which, name in self.answered if which == life}

    def _witness(self, body: dict, authorization: str) -> HttpAnswer | None:
        life, name = int(authorization.removeprefix("Bearer life")), hash_body(body)
        with self._lock:
            self.arrived.append((life, name))
            n_arrived = sum(name == other for _, other in self.arrived)
        self._check(lambda: self._row_missing(body, n_arrived))
        self._instant(life, "arrival")
        self._enter(life)
        answer = self._complete(body, authorization)
        self._check(self._money_missing)
        is_answer = answer is not None and answer[0] in (200, 400)
        with self._lock:
            if is_answer:
                self.answered.append((life, name))
            elif answer is None:
                self.dropped[name] += 1
        self._leave(life, is_answer)
        if is_answer:
            self._instant(life, "answer")
        return answer

    def _enter(self, life: int) -> None:
        """Lets a call in; for "quiet" only as many as are to be answered."""
        with self._lock:
            while self._is_quiet(life) and self._left <= 0:
                self._silent.wait()
            self._left -= self._is_quiet(life)
            self._n_busy += life == self._life

    def _leave(self, life: int, is_answer: bool) -> None:
        with self._lock:
            self._n_busy -= life == self._life
            if self._is_quiet(life) and not is_answer:  # then another one gets its turn
                self._left += 1
                self._silent.notify_all()

    def _is_quiet(self, life: int) -> bool:
        return (self._kind, self._life) == ("quiet", life)

    def _instant(self, life: int, what: str) -> None:
        with self._lock:
            waits_for = "arrival" if self._kind == "arrival" else "answer"
            if life != self._life or what != waits_for or self._kind == "quiet":
                return
            self._left -= 1
            is_now = self._left == 0 and self._kind in ("arrival", "served")
        if is_now:
            self._kill()

    def _check(self, look: Callable[[], str]) -> None:
        """Notes what is wrong; a server's thread must not fail, for nobody would hear of it."""
        try:
            wrong = look()
        except sqlite3.Error as exc:
            wrong = f"the ledger could not be read: {exc}"
        if wrong:
            self.wrongs.append(wrong)

    def _row_missing(self, body: dict, n_arrived: int) -> str:
        key = compute_request_key({**body, "provider": PROVIDER, "sample_index": 0})
        found = query(self._path, "SELECT count(*) FROM attempts WHERE key = ?", key)
        n_rows = found[0][0] if found else 0
        return f"call {n_arrived} for {key} met only {n_rows} rows" if n_rows < n_arrived else ""

    def _money_missing(self) -> str:
        billed = self._server.billed  # before the ledger: what is held may only be more by then
        held, stop = read_total_reserved(self._path), self._stop
        if held < billed:
            return f"{billed} were billed, but only {held} held"
        return f"{held} are held above a hard stop of {stop}" if stop and held > stop else ""
