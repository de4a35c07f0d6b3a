"""The monitors of the chaos test: one in the teacher's server, one that reads the ledger's file.

The one idea: no assertion depends on what the killed process reports. The server records what
arrived and what was answered, per process (each process has its own key), and the ledger is read as
a SQLite file, not through the class under test.
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
from bridgekd.sandbox.teacher_server import HttpAnswer, hash_body
from chaos_process import PROVIDER, ProcessTask
from faulty_teacher import FaultyTeacherServer

FINAL = ("answered", "truncated", "refused")
AT_RESERVE = ("reserved", "unknown", "unparsable")
COLUMNS = (
    "id", "key", "run", "purpose", "model", "request", "state", "reserve_microusd",
    "cost_microusd", "n_prompt_tokens", "n_completion_tokens", "raw_response", "created_at",
    "settled_at",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Attempt:
    """A row of the ledger, as it is in the file."""

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
        """The name of this request at the server."""
        return hash_body(get_payload(json.loads(self.request)))

    @property
    def held(self) -> int:
        """The amount that counts against the hard limit, calculated by the rule."""
        at_reserve = self.state in AT_RESERVE
        return self.reserve_microusd if at_reserve else self.cost_microusd or 0

    @property
    def arrived(self) -> bool:
        """Whether the ledger has an answer, settled or not, that must not be requested again."""
        is_answer = self.raw_response is not None and '"choices"' in self.raw_response
        return self.state in FINAL or (self.state == "reserved" and is_answer)


def open_file(path: Path) -> sqlite3.Connection:
    """Open a ledger for reading while another process may write it."""
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)


def has_tables(path: Path) -> bool:
    """Return whether a ledger exists. Before it has tables, its file changes from journals to WAL,
    and a reader cannot open a file with the journal of a killed process.
    """
    if not path.exists() or path.with_name(f"{path.name}-journal").exists():
        return False
    with closing(open_file(path)) as db:
        return bool(db.execute("SELECT 1 FROM sqlite_master WHERE name = 'totals'").fetchone())


def query(path: Path, query: str, *values: object) -> list[tuple]:
    """Return rows of a ledger; none while it has no tables."""
    if not has_tables(path):
        return []
    with closing(open_file(path)) as db:
        return db.execute(query, values).fetchall()


def attempts(path: Path) -> tuple[Attempt, ...]:
    rows = query(path, f"SELECT {', '.join(COLUMNS)} FROM attempts ORDER BY id")
    return tuple(Attempt(*row) for row in rows)


def read_total_reserved(path: Path) -> int:
    """Return the total that the ledger keeps for its hard limit."""
    return sum(held for (held,) in query(path, "SELECT held_microusd FROM totals"))


class ServerMonitor:
    """Watches the server, and kills at moments that only a server can see.

    `errors` are violated rules: at each arrival the row is written, at each cost the money is
    reserved, and the hard limit is kept, while the process runs.
    """

    def __init__(self, server: FaultyTeacherServer, path: Path) -> None:
        self.arrived: list[tuple[int, str]] = []  # process and name, in order
        self.answered: list[tuple[int, str]] = []  # with an answer or a refusal
        self.dropped: Counter[str] = Counter()
        self.errors: list[str] = []
        self._server, self._path = server, path
        self._complete = server.complete
        server.complete = self._complete_watched
        self._lock = threading.Lock()
        self._silent = threading.Condition(self._lock)
        self._process, self._kind, self._left = 0, "", 0
        self._stop: int | None = None
        self._n_busy = 0  # requests of this process that are being answered
        self._kill: Callable[[], None] = lambda: None

    def arm(self, task: ProcessTask, kind: str, n: int, kill: Callable[[], None]) -> None:
        """Watch the process of this task and kill it at the n-th moment of this kind."""
        with self._lock:
            self._process, self._stop, self._kind, self._left = task.process, task.stop, kind, n
            self._kill, self._n_busy = kill, 0

    def disarm(self) -> None:
        """End the silence and kill no more."""
        with self._lock:
            self._kind = ""
            self._silent.notify_all()

    def is_due(self) -> bool:
        """Return whether the moment has come; for "quiet": n are answered, and no more will be."""
        with self._lock:
            return self._left <= 0 and (self._kind != "quiet" or not self._n_busy)

    def get_answered(self, process: int) -> set[str]:
        with self._lock:
            return {name for which, name in self.answered if which == process}

    def _complete_watched(self, body: dict, authorization: str) -> HttpAnswer | None:
        process, name = int(authorization.removeprefix("Bearer process")), hash_body(body)
        with self._lock:
            self.arrived.append((process, name))
            n_arrived = sum(name == other for _, other in self.arrived)
        self._check(lambda: self._find_missing_row(body, n_arrived))
        self._count_moment(process, "arrival")
        self._enter(process)
        answer = self._complete(body, authorization)
        self._check(self._find_missing_reserve)
        is_answer = answer is not None and answer[0] in (200, 400)
        with self._lock:
            if is_answer:
                self.answered.append((process, name))
            elif answer is None:
                self.dropped[name] += 1
        self._leave(process, is_answer)
        if is_answer:
            self._count_moment(process, "answer")
        return answer

    def _enter(self, process: int) -> None:
        """Admit a request; for "quiet" only n of them."""
        with self._lock:
            while self._is_quiet(process) and self._left <= 0:
                self._silent.wait()
            self._left -= self._is_quiet(process)
            self._n_busy += process == self._process

    def _leave(self, process: int, is_answer: bool) -> None:
        with self._lock:
            self._n_busy -= process == self._process
            if self._is_quiet(process) and not is_answer:  # admit another one
                self._left += 1
                self._silent.notify_all()

    def _is_quiet(self, process: int) -> bool:
        return (self._kind, self._process) == ("quiet", process)

    def _count_moment(self, process: int, what: str) -> None:
        with self._lock:
            waits_for = "arrival" if self._kind == "arrival" else "answer"
            if process != self._process or what != waits_for or self._kind == "quiet":
                return
            self._left -= 1
            is_now = self._left == 0 and self._kind in ("arrival", "served")
        if is_now:
            self._kill()

    def _check(self, check: Callable[[], str]) -> None:
        """Record an error. A server's thread must not fail, because no one would see it."""
        try:
            error = check()
        except sqlite3.Error as exc:
            error = f"the ledger could not be read: {exc}"
        if error:
            self.errors.append(error)

    def _find_missing_row(self, body: dict, n_arrived: int) -> str:
        key = compute_request_key({**body, "provider": PROVIDER, "sample_index": 0})
        rows = query(self._path, "SELECT count(*) FROM attempts WHERE key = ?", key)
        n_rows = rows[0][0] if rows else 0
        return f"request {n_arrived} for {key} has only {n_rows} rows" if n_rows < n_arrived else ""

    def _find_missing_reserve(self) -> str:
        billed = self._server.billed  # before the ledger: the reserved total can only grow
        held, stop = read_total_reserved(self._path), self._stop
        if held < billed:
            return f"{billed} billed, but only {held} reserved"
        return f"{held} reserved above a hard limit of {stop}" if stop and held > stop else ""
