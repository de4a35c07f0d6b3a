"""A batch server with a spy, and purchases that are stopped before their end."""

import asyncio
import gc
import subprocess
import sys
import threading
from collections import Counter
from urllib.parse import urlsplit

import pytest

from bridgekd.api_client.request_key import TeacherRequest, build_request, get_payload
from bridgekd.cost.budget import Limits
from bridgekd.ledger.ledger import Ledger
from bridgekd.ledger.verify import verify
from bridgekd.recipe import Price
from bridgekd.records import Message
from bridgekd.sandbox.teacher_server import hash_body
from bridgekd.teacher.buy_answers import buy_answers
from bridgekd.teacher.group_commit import GroupCommitter
from bridgekd.teacher.purchase_spec import PurchaseSpec
from bridgekd.teacher.scheduler import RequestScheduler
from bridgekd.teacher.transport import TransportContext
from bridgekd.teacher.transports import resolve_teacher
from test_live_transport import teacher_at

PRICE = Price(input=2.5, output=10.0, batch_factor=0.5)
OWN = ("max_requests", "max_bytes")
RESERVE = 1103  # of a request of `pool`: half of (128 + 16 + 10 bytes) * 2.5 + 182 * 10, up


def batch_teacher(server, **more):
    transport = {"name": "batch", "poll_s": 0.02} | {k: more.pop(k) for k in OWN if k in more}
    return teacher_at(server, **{"transport": transport, "price": PRICE} | more)


def buy_batch(path, server, requests, *, stop=None, limits=None, key="none", note=None, **more):
    options = {name: more.pop(name) for name in ("accept", "run") if name in more}
    with Ledger(path, hard_limit_microusd=stop) as ledger:
        return buy_answers(
            requests,
            ledger,
            teacher=batch_teacher(server, **more),
            limits=limits or Limits(),
            api_key=key,
            backoff_s=0.05,
            note=note or (lambda text: None),
            **{"run": "r"} | options,
        )


def make_other_requests(n):
    return [TeacherRequest(f"o{i}", i, (Message("user", f"another?{i:02}"),)) for i in range(n)]


def n_open(path):
    with Ledger(path) as ledger:
        return len(ledger.open_batches())


def own_calls(server, requests):
    """Return how often the server saw each of these requests."""
    teacher = batch_teacher(server)
    return [server.calls[hash_body(get_payload(build_request(teacher, r)))] for r in requests]


class BatchServerSpy:
    """Counts the requests to a server's batch API, and lets `hook` answer them.

    A request is named "POST files", "POST batches", "GET list" ("GET next" for a further page),
    "GET batch" or "GET content"; `hook(name, go)` answers it, where `go()` is the desk's transport
    answer.
    """

    def __init__(self, server, hook=None):
        self.seen = Counter()
        self.hook = hook or (lambda name, go: go())
        self._handle, server.batches.handle = server.batches.handle, self._watched
        self._changed = threading.Condition()

    def _watched(self, method, url, content_type, raw):
        split = urlsplit(url)
        match method, split.path.split("/")[2:]:
            case "GET", ["batches"]:
                name = "GET next" if "after=" in split.query else "GET list"
            case "GET", ["batches", _]:
                name = "GET batch"
            case "GET", ["files", _, "content"]:
                name = "GET content"
            case _, [what, *_]:
                name = f"{method} {what}"
        with self._changed:
            self.seen[name] += 1
            self._changed.notify_all()
        return self.hook(name, lambda: self._handle(method, url, content_type, raw))

    def wait_for(self, name):
        """Return after the first request of this name."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.seen[name], 20), self.seen


def buy_until(path, server, requests, *, stop_at=None, spy=None, note=None, **more):
    """Purchase in this process; cancel, as Ctrl-C does, after the request `stop_at`."""

    async def stopped(purchase):
        await asyncio.to_thread(spy.wait_for, stop_at)
        purchase.cancel()

    async def main(scheduler):
        purchase = asyncio.create_task(scheduler.run(requests))
        stopping = asyncio.create_task(stopped(purchase)) if stop_at else None
        try:
            return await purchase
        except asyncio.CancelledError:
            return "cancelled"
        finally:
            if stopping:
                await stopping

    with Ledger(path) as ledger:
        resolved = resolve_teacher(batch_teacher(server, **more))
        context = TransportContext(
            resolved, "none", GroupCommitter(ledger), note or (lambda text: None)
        )
        scheduler = RequestScheduler(PurchaseSpec(context, Limits(), "r", "train", backoff_s=0.005))
        return asyncio.run(main(scheduler)), scheduler


def stop_purchase(path, server, spy, requests, stop_at="GET batch", **more):
    """Stop a purchase as Ctrl-C does, while its batch is still open."""
    stopped, answer = threading.Event(), spy.hook

    def answer_after_stop(name, go):
        # A batch may be complete at once: on a busy machine its answers arrived before the stop.
        if name == "GET batch":
            stopped.wait(20)
        return answer(name, go)

    spy.hook = answer_after_stop
    try:
        stop_reason, scheduler = buy_until(path, server, requests, stop_at=stop_at, spy=spy, **more)
    finally:
        stopped.set()
        spy.hook = answer
    assert (stop_reason, scheduler.rows) == ("cancelled", {})


CHILD = """
import os
import signal
import sys
from bridgekd.recipe import Price, TeacherOptions
from bridgekd.ledger.ledger import Ledger
from bridgekd.cost.budget import Limits
from bridgekd.api_client.request_key import TeacherRequest
from bridgekd.teacher.buy_answers import buy_answers
from bridgekd.records import Message
from bridgekd.sandbox.teacher_server import SANDBOX_MODEL
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job may ignore it
path, base_url, microusd, die_at = sys.argv[1:]
teacher = TeacherOptions(model=SANDBOX_MODEL, base_url=base_url, api_key_env=None, max_tokens=182,
                  price=Price(input=2.5, output=10.0, batch_factor=0.5),
                  transport={"name": "batch", "poll_s": 0.02})
requests = [TeacherRequest(f"e{i}", i, (Message("user", f"question{i:02}"),)) for i in range(60)]
n_commits = 0

def traced(statement):
    global n_commits
    n_commits += statement == "COMMIT"
    if n_commits == int(die_at) > 0:
        os.kill(os.getpid(), signal.SIGKILL)

with Ledger(path) as ledger:
    ledger._connection("write").set_trace_callback(traced)
    try:
        buy_answers(requests, ledger, teacher=teacher, limits=Limits(microusd=int(microusd)),
        run="r",
            api_key="none", backoff_s=0.005)
    except KeyboardInterrupt:
        sys.exit(130)
"""


def start_process(path, server, *, microusd, die_at=0):
    """Start a process that purchases for this amount; kill it at the start of its n-th commit."""
    arguments = [sys.executable, "-W", "error", "-c", CHILD, str(path), server.base_url]
    return subprocess.Popen([*arguments, str(microusd), str(die_at)], stderr=subprocess.PIPE)


@pytest.fixture
def check_clean_exit(tmp_path, caplog):
    """No task has an exception that no one retrieved, and every ledger is consistent."""
    yield
    gc.collect()
    assert [r.getMessage() for r in caplog.records if r.name == "asyncio"] == []
    for path in tmp_path.glob("*.db"):
        assert verify(path).errors == ()
