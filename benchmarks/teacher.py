"""Calls a second against a teacher that is slow or throttles: bridgekd and what others would use.

The one idea: everything is read off the teacher's own notes (when a call came, when it was
answered, what was billed), so that all clients are measured by the same clock and none by its own
word. Each setting is run several times, the clients in turn; where the calls are so few that two
cores serve them all, side by side, each with a teacher of its own.

    python benchmarks/teacher.py [--quick] [--repeats 3] [--json FILE] [--peer-venv FOLDER]
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
PEER = "bespokelabs-curator==0.1.31"
PEER_VENV = Path.home() / ".cache" / "bridgekd-benchmarks" / "curator"
CLIENTS = ("bridgekd", "openai", "curator")
MAX_TOKENS = 64
PATIENCE = 1.7  # a client that needs so many times the best time is stopped


@dataclass(frozen=True, slots=True)
class Setting:
    """One teacher and one client's concurrency. `seconds` is how long the best client needs.

    `rate` is in requests per second, 0 for none; `steps` are (after so many seconds, another).
    `burst_s` seconds of the rate may come at once; `whole_seconds`: Retry-After is rounded up.
    The steady part begins `ramp_s` after the first call.
    """

    name: str
    concurrency: int
    latency_s: float
    seconds: float
    ramp_s: float
    spread: float = 0.1
    rate: float = 0.0
    steps: tuple[tuple[float, float], ...] = ()
    burst_s: float = 1.0
    whole_seconds: bool = False
    side_by_side: bool = False

    def is_possible(self, since: float, until: float) -> float:
        """The most calls that can be answered between two moments: the integral of min(R, C/L)."""
        mean_s = self.latency_s * math.exp(self.spread**2 / 2)
        widest = self.concurrency / mean_s
        edges = [0.0, *(moment for moment, _ in self.steps), math.inf]
        speeds = [self.rate or math.inf, *(speed for _, speed in self.steps)]
        return sum(
            max(0.0, min(until, end) - max(since, start)) * min(speed, widest)
            for start, end, speed in zip(edges, edges[1:], speeds, strict=False)
        )

    @property
    def n(self) -> int:
        return round(self.is_possible(0, self.seconds))


SETTINGS = (
    Setting("latency 16/0.2 s", 16, 0.2, 7, 2),
    Setting("latency 64/0.5 s", 64, 0.5, 7, 2),
    Setting("rate 50/s", 32, 0.2, 10, 3, rate=50, side_by_side=True),
    replace(
        Setting("rate 50/s, 5 at once", 32, 0.2, 10, 3, rate=50, side_by_side=True),
        burst_s=0.1,
        whole_seconds=True,
    ),
    Setting("rate 100/s, after 10 s 50/s", 40, 0.2, 17, 3, rate=100, steps=((10, 50),)),
    Setting("latency 64/2 s, spread 0.5", 64, 2.0, 16, 4, spread=0.5, side_by_side=True),
)
KILLED = Setting("killed", 16, 0.2, 8, 2, rate=50)
KILL_AFTER_S = 4.0


@dataclass(frozen=True, slots=True)
class Run:
    """What the teacher's notes say of one client in one setting."""

    setting: str
    client: str
    per_s: float
    share: float
    n_requested: int
    n_came: int
    n_rate_limited: int
    n_missing: int  # questions without an answer in the client's result


@dataclass(frozen=True, slots=True)
class Kill:
    """A client killed midway and started again. Lost: billed and not in the result.

    Twice: questions that were billed more than once; `n_in_flight` is how many calls were at the
    teacher when the client died, which no client can save.
    """

    client: str
    n_in_flight: int
    n_lost: int
    n_twice: int
    n_twice_arrived: int  # of these, questions whose answer the teacher had sent before the kill
    n_missing: int


class Teacher:
    """A teacher process for one run."""

    def __init__(self, setting: Setting) -> None:
        args = json.dumps(asdict(setting))
        command = [sys.executable, str(HERE / "peers" / "timed_server.py"), args]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=build_environment(),
        )
        self.base_url = self._process.stdout.readline().strip()

    def notes(self) -> list[tuple[float, float, int, int]]:
        """(came, done, status, question) of every call, after which the teacher is gone."""
        output, _ = self._process.communicate("\n")
        return sorted(tuple(note) for note in json.loads(output))


def build_environment() -> dict[str, str]:
    """No proxy stands between this machine and itself; one thread each."""
    source = str(HERE.parent / "src")
    return dict(os.environ, PYTHONPATH=source, NO_PROXY="127.0.0.1", OMP_NUM_THREADS="1")


def start(
    client: str, setting: Setting, base_url: str, folder: str, peer: Path
) -> subprocess.Popen:
    job = {
        "base_url": base_url,
        "n": setting.n,
        "concurrency": setting.concurrency,
        "max_tokens": MAX_TOKENS,
        "rate": setting.rate,
        "folder": folder,
    }
    python = peer / "bin" / "python" if client == "curator" else sys.executable
    command = [str(python), str(HERE / "peers" / f"with_{client}.py"), json.dumps(job)]
    with (Path(folder) / "said.txt").open("a") as output:
        return subprocess.Popen(command, stdout=output, stderr=output, env=build_environment())


def finish(process: subprocess.Popen, folder: str, timeout_s: float | None) -> set[int]:
    """The questions in the client's result; none where it was stopped for being late."""
    try:
        code = process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return set()
    if code:
        sys.exit((Path(folder) / "said.txt").read_text()[-2000:])
    return set(json.loads((Path(folder) / "result.json").read_text()))


def measure(client: str, setting: Setting, peer: Path) -> Run:
    teacher = Teacher(setting)
    with tempfile.TemporaryDirectory() as folder:
        process = start(client, setting, teacher.base_url, folder, peer)
        late_s = PATIENCE * setting.seconds + 15  # some need long to start
        result = finish(process, folder, late_s)
    notes = teacher.notes()
    began = notes[0][0]
    answers = sorted(done - began for _, done, status, _ in notes if status == 200)
    # The tail is when fewer questions are left than may be in flight.
    until = answers[max(0, len(answers) - setting.concurrency - 1)]
    n = sum(setting.ramp_s <= moment < until for moment in answers)
    return Run(
        setting=setting.name,
        client=client,
        per_s=n / (until - setting.ramp_s),
        share=n / setting.is_possible(setting.ramp_s, until),
        n_requested=setting.n,
        n_came=len(notes),
        n_rate_limited=sum(status == 429 for _, _, status, _ in notes),
        n_missing=setting.n - len(result),
    )


def kill(client: str, peer: Path) -> Kill:
    teacher = Teacher(KILLED)
    with tempfile.TemporaryDirectory() as folder:
        process = start(client, KILLED, teacher.base_url, folder, peer)
        while not (Path(folder) / "began").exists():  # made by the client just before it asks
            time.sleep(0.05)
        time.sleep(KILL_AFTER_S)
        process.kill()
        killed = time.monotonic()
        process.wait()
        time.sleep(2 * KILLED.latency_s)  # what was in flight is answered to nobody, and billed
        again = start(client, KILLED, teacher.base_url, folder, peer)
        result = finish(again, folder, None)
    billed = [note for note in teacher.notes() if note[2] == 200]
    times = {}
    for _, done, _, question in billed:
        times.setdefault(question, []).append(done)
    twice = [moments for moments in times.values() if len(moments) > 1]
    return Kill(
        client=client,
        n_in_flight=sum(came < killed <= done for came, done, _, _ in billed),
        n_lost=len(billed) - len(result),
        n_twice=len(twice),
        n_twice_arrived=sum(min(moments) < killed for moments in twice),
        n_missing=KILLED.n - len(result),
    )


def find_peer_venv(folder: Path | None) -> Path | None:
    """The peer's virtual environment, made where it is not there; None where it cannot be had."""
    folder = folder or PEER_VENV
    if not (folder / "bin" / "python").exists():
        print(f"Installing {PEER} into {folder}", file=sys.stderr)
        venv.create(folder, with_pip=True)
    known = subprocess.run(
        [folder / "bin" / "python", "-c", "import bespokelabs.curator"], check=False
    )
    if known.returncode:
        command = [folder / "bin" / "python", "-m", "pip", "install", "-q", PEER]
        if subprocess.run(command, check=False).returncode:
            print(f"{PEER} cannot be installed; going on without it.", file=sys.stderr)
            return None
    return folder


def measure_durable_write_ms() -> float:
    """How long this disk takes to make a page durable. Only bridgekd waits for that."""
    times = []
    with tempfile.TemporaryFile() as file:
        for _ in range(100):
            began = time.perf_counter()
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


def describe_spread(values: list[float], form: str) -> str:
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:{form}} ({low:{form}}-{high:{form}})"


def print_runs(runs: list[Run]) -> None:
    names = ("n_requested", "n_came", "n_rate_limited", "n_missing")
    print("\n| teacher | client | calls/s | share of the bound | to bridgekd | ", end="")
    print("asked | came | 429 | missing |")
    print("|---" * 9 + "|")
    for setting in dict.fromkeys(run.setting for run in runs):
        here = [run for run in runs if run.setting == setting]
        middle = {
            client: statistics.median(run.per_s for run in here if run.client == client)
            for client in dict.fromkeys(run.client for run in here)
        }
        for client, per_s in middle.items():
            found = [run for run in here if run.client == client]
            ratio = per_s / middle.get("bridgekd", math.nan)
            cells = [
                describe_spread([run.per_s for run in found], ".1f"),
                describe_spread([run.share for run in found], ".3f"),
                f"{ratio:.2f}",
                *(
                    f"{statistics.median(getattr(run, name) for run in found):.0f}"
                    for name in names
                ),
            ]
            print(f"| {setting} | {client} | {' | '.join(cells)} |")


def print_kills(kills: list[Kill]) -> None:
    print(f"\nKilled (SIGKILL) {KILL_AFTER_S:g} s after the start and started again:\n")
    print("| client | in flight | lost | twice | of these sent before the kill | missing |")
    print("|---|---|---|---|---|---|")
    names = ("n_in_flight", "n_lost", "n_twice", "n_twice_arrived", "n_missing")
    for client in CLIENTS:
        found = [kill for kill in kills if kill.client == client]
        if found:
            cells = [
                describe_spread([getattr(kill, name) for kill in found], ".0f") for name in names
            ]
            print(f"| {client} | {' | '.join(cells)} |")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="once, and three settings only")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where to write every run")
    parser.add_argument("--peer-venv", type=Path, help="a virtual environment that has the peer")
    parser.add_argument("--clients", nargs="+", choices=CLIENTS, default=CLIENTS)
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    peer = find_peer_venv(args.peer_venv) if "curator" in args.clients else None
    clients = [name for name in args.clients if name != "curator" or peer]
    settings, repeats = SETTINGS, args.repeats
    if args.quick:
        settings, repeats = SETTINGS[1:5:3] + SETTINGS[2:3], 1
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    print(f"{load}, {measure_durable_write_ms():.1f} ms a durable write")
    runs, kills = [], []
    began = time.monotonic()
    for turn in range(repeats):
        for setting in settings:
            with ThreadPoolExecutor(len(clients) if setting.side_by_side else 1) as pool:
                runs += pool.map(lambda name, each=setting: measure(name, each, peer), clients)
        with ThreadPoolExecutor(len(clients)) as pool:
            kills += pool.map(lambda name: kill(name, peer), clients)
        print(f"{turn + 1} of {repeats} after {time.monotonic() - began:.0f} s", file=sys.stderr)
    print_runs(runs)
    print_kills(kills)
    if args.json:
        found = {"runs": [asdict(run) for run in runs], "kills": [asdict(each) for each in kills]}
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
