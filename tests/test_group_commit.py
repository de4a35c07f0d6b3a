"""Grouped writes: durable before they return, undone one by one, in the order of rank."""

import asyncio
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bridgekd.api_client.chat_completion import RequestCost
from bridgekd.api_client.request_key import TeacherRequest
from bridgekd.errors import HardLimitError, InputError
from bridgekd.ledger.database import find_file_system
from bridgekd.ledger.ledger import Ledger
from bridgekd.ledger.spend import sum_spend
from bridgekd.records import Message
from bridgekd.teacher.group_commit import GroupCommitter
from faulty_teacher import Faults, run_teacher_server
from test_live_transport import pool, purchase, words


def call(n):
    return {"provider": "p", "model": "m", "messages": [], "max_tokens": 1, "sample_index": n}


def reserve(ledger, n, amount=100):
    return ledger.reserve(call(n), run="r", purpose="train", reserve_microusd=amount)


def durable_ids(path):
    """Return the ids that another connection finds, as after a power failure now."""
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return {row[0] for row in db.execute("SELECT id FROM attempts")}
    finally:
        db.close()


def test_reservation_is_durable_when_commit_returns(tmp_path):
    async def many(commits):
        async def one(n):
            attempt_id = await commits.commit(lambda: reserve(commits.ledger, n))
            assert attempt_id in durable_ids(commits.ledger.path)

        await asyncio.gather(*map(one, range(50)))

    with Ledger(tmp_path / "l.db") as ledger:
        asyncio.run(many(GroupCommitter(ledger)))
        assert ledger.reserved_microusd() == 5000


def test_many_writes_share_few_transactions(tmp_path):
    with Ledger(tmp_path / "l.db") as ledger:
        commits, n_commits = GroupCommitter(ledger), []
        ledger._connection("write").set_trace_callback(
            lambda statement: n_commits.append(1) if statement == "COMMIT" else None
        )

        async def many():
            await asyncio.gather(
                *(commits.commit(lambda n=n: reserve(ledger, n)) for n in range(200))
            )

        asyncio.run(many())
        assert len(n_commits) <= 3


def test_failed_write_undoes_itself_alone(tmp_path):
    with Ledger(tmp_path / "l.db", hard_limit_microusd=250) as ledger:
        works = [lambda n=n: reserve(ledger, n) for n in range(2)]
        works += [lambda: ledger.release(99), lambda: reserve(ledger, 3, 50)]
        first, second, failed, last = ledger.run_in_transaction(works)
        assert isinstance(failed, ValueError)
        assert durable_ids(ledger.path) == {first, second, last}
        refused, small = ledger.run_in_transaction(
            [lambda: reserve(ledger, 4), lambda: reserve(ledger, 5, 0)]
        )
        assert isinstance(refused, HardLimitError)
        assert durable_ids(ledger.path) == {first, second, last, small}


def test_write_is_done_even_if_caller_is_cancelled(tmp_path):
    async def impatient(commits):
        task = asyncio.create_task(commits.commit(lambda: reserve(commits.ledger, 1)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await commits.drain()

    with Ledger(tmp_path / "l.db") as ledger:
        asyncio.run(impatient(GroupCommitter(ledger)))
        assert len(durable_ids(ledger.path)) == 1


def test_reader_sees_only_durable_rows(tmp_path):
    with Ledger(tmp_path / "l.db") as ledger:
        looked = threading.Event()
        inside = threading.Event()

        def settle():
            attempt_id = reserve(ledger, 1)
            ledger.record(attempt_id, '{"choices": []}', price=None)
            ledger.settle(attempt_id, "refused", RequestCost())
            inside.set()
            looked.wait(10)

        writer = threading.Thread(target=ledger.run_in_transaction, args=([settle],))
        writer.start()
        inside.wait(10)
        from bridgekd.api_client.request_key import compute_request_key

        before = ledger.find_answer(compute_request_key(call(1)))
        looked.set()
        writer.join()
        assert before is None
        assert ledger.find_answer(compute_request_key(call(1))).state == "refused"


def test_small_request_does_not_pass_earlier_one_that_waits_for_budget(tmp_path):
    """The large second request waits for the first. The small ones after it wait, too."""
    sizes = [10, 700, 10, 10]
    requests = [
        TeacherRequest(f"e{n}", n, (Message("user", "x" * size),)) for n, size in enumerate(sizes)
    ]
    order = []

    def slowly(question, seed):
        order.append(len(question))
        return "Answer: 4"

    with run_teacher_server(slowly, faults=Faults(latency_s=0.1)) as server:
        stop = 2205 + 3000  # maximum cost of the first, and less than the 3930 of the second
        result = purchase(tmp_path / "l.db", server, requests, stop=stop)
    assert len(result.completions) == 4
    assert order[:2] == [10, 700]


def test_purchase_works_in_running_event_loop(tmp_path):
    async def notebook(server):
        return purchase(tmp_path / "l.db", server, pool(5))

    with run_teacher_server(words) as server:
        assert len(asyncio.run(notebook(server)).completions) == 5


@pytest.mark.parametrize(
    "path, file_system",
    [
        ("/home/me/ledger.db", "nfs4"),
        ("/home/me/local/ledger.db", "ext4"),
        ("/homes/ledger.db", "ext4"),
        ("/mnt/share/x/ledger.db", "cifs"),
    ],
)
def test_file_system_of_path_is_that_of_deepest_mount(path, file_system):
    mounts = [("/", "ext4"), ("/home", "nfs4"), ("/mnt/share", "ext4"), ("/mnt/share", "cifs")]
    assert find_file_system(Path(path), [*mounts, ("/home/me/local", "ext4")]) == file_system


def test_ledger_on_shared_file_system_is_refused(tmp_path, monkeypatch):
    from collections import namedtuple

    import psutil

    part = namedtuple("part", "mountpoint fstype")
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: [part(str(tmp_path), "nfs4")])
    with pytest.raises(InputError, match=r"shared file system \(nfs4\).*local disk"):
        Ledger(tmp_path / "l.db").__enter__()
    assert not (tmp_path / "l.db").exists()


FULL = """
import os
import sys
from bridgekd.api_client.chat_completion import RequestCost
from bridgekd.ledger.ledger import Ledger
from bridgekd.errors import InputError
path, filler = sys.argv[1:]
call = lambda n: {"provider": "p", "model": "m", "messages": [], "sample_index": n}
terms = {"run": "r", "purpose": "train", "reserve_microusd": 1}
with Ledger(path) as ledger:
    open_ids = [ledger.reserve(call(n), **terms) for n in range(64)]
    full = os.open(filler, os.O_CREAT | os.O_WRONLY)
    try:
        while True:  # another program fills the disk
            os.write(full, bytes(4096))
    except OSError:
        os.close(full)
    for attempt_id in open_ids:  # these answers are paid for, and arrive
        works = [lambda: ledger.record(attempt_id, "x" * 8000, price=None)]
        works += [lambda: ledger.reserve(call(98), **terms)]  # another request
        ledger.run_in_transaction(works)
        ledger.run_in_transaction([lambda: ledger.settle(attempt_id, "answered", RequestCost(1, 1,
        1))])
    try:
        ledger.reserve(call(99), **terms)
    except InputError as exc:
        print(exc)
"""


def test_disk_that_fills_up_loses_no_answer_of_open_requests(tmp_path):
    """The disk is a small file system in its own mount namespace."""
    disk = tmp_path / "disk"
    disk.mkdir()
    (tmp_path / "child.py").write_text(FULL)
    script = (
        f"mount -t tmpfs -o size=24m none {disk} && "
        f"{sys.executable} {tmp_path}/child.py {disk}/l.db {disk}/filler && rm {disk}/filler && "
        f"cp {disk}/l.db* {tmp_path}"
    )
    command = ["unshare", "-rm", "sh", "-c", script]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        pytest.skip("unshare is missing, so no small disk can be made")
    if "mount:" in done.stderr or "unshare:" in done.stderr:
        pytest.skip(f"no small disk can be made here: {done.stderr.strip()}")
    assert (done.stderr, done.returncode) == ("", 0)
    assert "the disk is full. All answers are saved" in done.stdout
    counts = {row.state: row.n_attempts for row in sum_spend(tmp_path / "l.db")}
    assert counts["answered"] == 64


INTERRUPTED = """
import asyncio, os, signal, sys, threading, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from faulty_teacher import Faults, run_teacher_server
from test_live_transport import pool, purchase, words

def interrupt_after(server, n):
    while server.served.total() < n:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)

async def notebook():
    with run_teacher_server(words, faults=Faults(latency_s=0.2)) as server:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        threading.Thread(target=interrupt_after, args=(server, 4)).start()
        try:
            purchase(Path(sys.argv[2]), server, pool(200), max_concurrent_requests=2)
        except KeyboardInterrupt:
            print(server.served.total())

asyncio.new_event_loop().run_until_complete(notebook())  # which handles no signals, as a kernel's
"""


def test_interrupt_in_notebook_stops_purchase(tmp_path):
    script = tmp_path / "notebook.py"
    script.write_text(INTERRUPTED)
    command = [sys.executable, str(script), str(Path(__file__).parent), str(tmp_path / "l.db")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    n_served = int(done.stdout.split()[0])
    assert 0 < n_served < 60
    counts = {row.state: row.n_attempts for row in sum_spend(tmp_path / "l.db")}
    assert counts["answered"] == n_served


def test_ledger_with_unreadable_log_is_not_shown_as_empty(tmp_path):
    with Ledger(tmp_path / "l.db") as ledger:
        reserve(ledger, 1)
        for name in ("l.db", "l.db-wal"):
            (tmp_path / f"copy-{name}").write_bytes((tmp_path / name).read_bytes())
    folder = tmp_path / "read-only"
    folder.mkdir()
    (tmp_path / "copy-l.db").rename(folder / "l.db")
    (tmp_path / "copy-l.db-wal").rename(folder / "l.db-wal")
    script = f"""
import sys
from bridgekd.ledger.spend import sum_spend
from bridgekd.errors import InputError
try:
    print(sum_spend({str(folder / "l.db")!r}))
except InputError as exc:
    print(exc)
"""
    (tmp_path / "look.py").write_text(script)
    mount = f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}"
    command = ["unshare", "-rm", "sh", "-c", f"{mount} && {sys.executable} {tmp_path}/look.py"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        pytest.skip("unshare is missing, so no read-only folder can be made")
    if "mount:" in done.stderr or "unshare:" in done.stderr:
        pytest.skip(f"no read-only folder can be made here: {done.stderr.strip()}")
    assert "Copy both files to a writable folder" in done.stdout
