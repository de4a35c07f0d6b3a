"""How fast the ledger is on this machine's disk: `python benchmarks/ledger.py [--quick]`.

Part one makes calls durable the way a buying does (reserved before the send, recorded and settled
after it) from many tasks at once, beside what the disk itself can do. Part two asks a ledger of a
million attempts. Everything is made in a temporary folder and removed; `--slow-disk 5` makes
every fsync of part one take 5 ms longer, also SQLite's own.
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from bridgekd.api_client.chat_completion import RequestCost, compute_request_cost, parse_completion
from bridgekd.api_client.request_key import compute_request_key, to_canonical_json
from bridgekd.ledger.export import export_ledger
from bridgekd.ledger.ledger import Ledger
from bridgekd.ledger.spend import sum_spend
from bridgekd.ledger.sql import dump_price
from bridgekd.ledger.usage_history import read_known_answers
from bridgekd.ledger.verify import verify
from bridgekd.recipe import Price
from bridgekd.teacher.group_commit import GroupCommitter

PRICE = Price(input=2.5, output=10)
RESERVE = 9_000
LETTERS = "etaoin shrdlu cmfwyp "
SLOW_FSYNC = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>
#define SLOW(name) int name(int fd) { usleep(%d); \\
    return ((int (*)(int)) dlsym(RTLD_NEXT, #name))(fd); }
SLOW(fsync) SLOW(fdatasync)
"""


def call(n: int, text: str) -> dict[str, object]:
    """A request of about 1.5 kB."""
    return {
        "provider": "openai",
        "model": f"model-{n % 3}",
        "messages": [
            {"role": "system", "content": text[:400]},
            {"role": "user", "content": f"{n} {text[400:1300]}"},
        ],
        "max_tokens": 512,
        "temperature": 0.0,
        "sample_index": 0,
    }


def make_response(n: int, text: str) -> str:
    """A raw body of about 2 kB."""
    message = {"role": "assistant", "content": f"{n} {text[:1650]}", "refusal": None}
    usage = {
        "prompt_tokens": 340,
        "completion_tokens": 300 + n % 150,
        "total_tokens": 640 + n % 150,
    }
    return json.dumps(
        {
            "id": f"chatcmpl-{n}",
            "object": "chat.completion",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": usage | {"prompt_tokens_details": {"cached_tokens": 0}},
        }
    )


def texts() -> list[str]:
    dice = random.Random(0)
    return ["".join(dice.choices(LETTERS, k=1700)) for _ in range(50)]


@contextmanager
def time_calls(what: str, goal: str = "") -> Iterator[None]:
    began = time.perf_counter()
    yield
    print_times(what, f"{time.perf_counter() - began:,.3f} s", goal)


def print_times(what: str, value: str, goal: str = "") -> None:
    print(f"  {what:<52}{value:>16}   {goal}", flush=True)


def measure_disk_limit(folder: Path, seconds: float) -> float:
    """Appends of 4 KiB, each made durable, per second."""
    with open(folder / "appended", "wb", buffering=0) as file:
        began, n = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            file.write(bytes(4096))
            os.fsync(file.fileno())
            n += 1
        return n / (time.perf_counter() - began)


def write_ungrouped(folder: Path, seconds: float) -> float:
    """Whole calls per second, with a transaction for every step."""
    text = texts()
    with Ledger(folder / "ungrouped.db") as ledger:
        began, n = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            raw = make_response(n, text[n % 50])
            attempt = reserve(ledger, n, text[n % 50])
            ledger.record(attempt, raw, price=PRICE)
            settle(ledger, attempt, raw)
            n += 1
        return n / (time.perf_counter() - began)


def reserve(ledger: Ledger, n: int, text: str) -> int:
    return ledger.reserve(call(n, text), run="r", purpose="train", reserve_microusd=RESERVE)


def settle(ledger: Ledger, attempt: int, raw: str) -> None:
    reply = parse_completion(raw)
    ledger.settle(
        attempt,
        reply.state,
        compute_request_cost(reply, PRICE, max_cost=RequestCost(1400, 512, RESERVE)),
    )


def write_grouped(folder: Path, n_tasks: int, seconds: float) -> tuple[float, float]:
    """Whole calls per second and the median wait for one to be reserved, from many tasks at once:
    each step is durable before the task takes its next one.
    """
    text, waits = texts(), []
    stop = 0.0

    async def one(commits: GroupCommitter, ledger: Ledger, first: int) -> int:
        n = first
        while time.perf_counter() < stop:
            raw = make_response(n, text[n % 50])
            began = time.perf_counter()
            attempt = await commits.commit(lambda n=n: reserve(ledger, n, text[n % 50]))
            waits.append(time.perf_counter() - began)
            await commits.commit(lambda a=attempt, raw=raw: ledger.record(a, raw, price=PRICE))
            await commits.commit(lambda a=attempt, raw=raw: settle(ledger, a, raw))
            n += n_tasks
        return (n - first) // n_tasks

    async def all_of(ledger: Ledger) -> int:
        commits = GroupCommitter(ledger)
        return sum(await asyncio.gather(*(one(commits, ledger, k) for k in range(n_tasks))))

    with Ledger(folder / f"grouped-{n_tasks}.db") as ledger:
        began = time.perf_counter()
        stop = began + seconds
        n_calls = asyncio.run(all_of(ledger))
        return n_calls / (time.perf_counter() - began), statistics.median(waits)


def measure_writes(folder: Path, seconds: float) -> None:
    print("Durable calls a second (reserved, then recorded, then settled; synchronous=FULL)")
    print_times(
        "the disk: 4 KiB appended and fsynced", f"{measure_disk_limit(folder, seconds):,.0f} /s"
    )
    print_times("one caller, a transaction a step", f"{write_ungrouped(folder, seconds):,.0f} /s")
    for n_tasks in (1, 8, 64, 256):
        rate, wait = write_grouped(folder, n_tasks, seconds)
        goal = "goal: 1,000 /s" if n_tasks >= 64 else ""
        print_times(f"{n_tasks} tasks, in groups", f"{rate:,.0f} /s", goal)
        print_times("   median wait until reserved", f"{wait * 1000:,.1f} ms")


def fill(path: Path, n_rows: int) -> None:
    """A ledger of answered attempts with real keys and bills, written as fast as SQLite can."""
    with Ledger(path):
        pass
    text, price = texts(), dump_price(PRICE)

    def rows() -> Iterator[tuple[object, ...]]:
        for n in range(n_rows):
            request, raw = call(n, text[n % 50]), make_response(n, text[n * 7 % 50])
            bill = compute_request_cost(parse_completion(raw), PRICE, max_cost=RequestCost())
            when = f"2026-{1 + n * 12 // n_rows:02}-{1 + n % 28:02}T10:00:00.000+00:00"
            known = (compute_request_key(request), f"run-{n * 10 // n_rows}", request["model"])
            amounts = (bill.n_prompt_tokens, bill.n_completion_tokens, bill.cost_microusd)
            yield (*known, to_canonical_json(request), RESERVE, *amounts, raw, price, when, when)

    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for pragma in ("synchronous = OFF", "cache_size = -400000", "wal_autocheckpoint = 100000"):
            db.execute(f"PRAGMA {pragma}")
        db.execute("BEGIN")
        db.executemany(
            """INSERT INTO attempts (key, run, model, request, reserve_microusd, n_prompt_tokens,
               n_completion_tokens, cost_microusd, raw_response, price, created_at, settled_at,
               state, provider, purpose)
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'answered', 'openai', 'train')""",
            rows(),
        )
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def clear_cache(path: Path) -> None:
    """Asks the system to drop the file from its memory, so that the disk is read."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def measure_reads(folder: Path, n_rows: int) -> None:
    path, text = folder / "large.db", texts()
    print(f"\nA ledger of {n_rows:,} attempts")
    with time_calls("(making it)"):
        fill(path, n_rows)
    print_times("(its size)", f"{path.stat().st_size / 1e9:,.2f} GB")
    clear_cache(path)
    ledger = Ledger(path)
    with time_calls("open to write, cold", "goal: < 1 s"):
        ledger.__enter__()
    dice = random.Random(1)
    known = [compute_request_key(call(n, text[n % 50])) for n in dice.sample(range(n_rows), 1000)]
    unknown = [compute_request_key(call(n, text[n % 50])) for n in range(n_rows, n_rows + 1000)]
    collect_times("recall of a known key", ledger, known, expect=True)
    collect_times("recall of an unknown key", ledger, unknown, expect=False)
    ledger.__exit__(None, None, None)
    questions: list[tuple[str, Callable[[], object], str]] = [
        ("spend by run, purpose, model, state", lambda: sum_spend(path), "goal: < 2 s"),
        ("spend by model, day", lambda: sum_spend(path, ("model", "day")), "goal: < 2 s"),
        (
            "known answers of a model",
            lambda: read_known_answers(path, call(1, "text " * 300)),
            "goal: < 2 s",
        ),
        (
            "known answers of an unknown model",
            lambda: read_known_answers(path, call(0, "text " * 300) | {"model": "x"}),
            "goal: < 2 s",
        ),
    ]
    for what, ask, goal in questions:
        clear_cache(path)
        with time_calls(f"{what}, cold", goal):
            ask()
        with time_calls(f"{what}, warm", goal):
            ask()
    with time_calls("verify"):
        assert not verify(path).errors
    for kind in ("csv", "jsonl"):
        with time_calls(f"export to {kind}"):
            export_ledger(path, folder / f"all.{kind}")


def collect_times(what: str, ledger: Ledger, keys: list[str], *, expect: bool) -> None:
    clear_cache(ledger.path)
    times = []
    for key in keys:
        began = time.perf_counter()
        found = ledger.find_answer(key)
        times.append(time.perf_counter() - began)
        assert (found is not None) == expect
    times.sort()
    goal = "goal: < 1 ms" if expect else ""
    print_times(f"{what}, median", f"{times[len(times) // 2] * 1000:.3f} ms", goal)
    print_times(f"{what}, 99 in 100", f"{times[len(times) * 99 // 100] * 1000:.3f} ms")


def repeat_on_slow_disk(folder: Path, delay_ms: float) -> int:
    """Runs part one anew with a library before the system's own that makes every fsync slower."""
    compiler = shutil.which("cc")
    if compiler is None:
        print("A slow disk needs a C compiler (cc) to be made; there is none.")
        return 2
    source, library = folder / "slow.c", folder / "slow.so"
    source.write_text(SLOW_FSYNC % round(delay_ms * 1000))
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    print(f"Every fsync takes {delay_ms:g} ms longer than this disk.")
    command = [sys.executable, __file__, "--only", "one", "--folder", str(folder)]
    return subprocess.run(command, env=os.environ | {"LD_PRELOAD": str(library)}).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="100,000 attempts, short timings")
    parser.add_argument("--rows", type=int, help="attempts in part two")
    parser.add_argument("--only", choices=("one", "two"), help="one of the two parts")
    parser.add_argument("--slow-disk", type=float, metavar="MS", help="part one, fsync slowed down")
    parser.add_argument("--folder", type=Path, help="on the disk to measure; else the system's")
    wanted = parser.parse_args()
    n_rows = wanted.rows or (100_000 if wanted.quick else 1_000_000)
    with tempfile.TemporaryDirectory(prefix="bridgekd-bench-", dir=wanted.folder) as name:
        folder = Path(name)
        if wanted.slow_disk is not None:
            return repeat_on_slow_disk(folder, wanted.slow_disk)
        need, free = n_rows * 14_000, shutil.disk_usage(folder).free
        if wanted.only != "one" and free < need:
            print(f"{folder} has {free / 1e9:.0f} GB free, this needs {need / 1e9:.0f}; --folder")
            return 2
        if wanted.only != "two":
            measure_writes(folder, 2.0 if wanted.quick else 5.0)
        if wanted.only != "one":
            measure_reads(folder, n_rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
