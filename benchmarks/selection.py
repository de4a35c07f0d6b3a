"""Seconds, memory and worth of a choice: bridgekd's strategies, plain numpy, and packages.

The one idea: each chooser works in a process of its own on the same arrays and gives back picks in
order; what they are worth is computed here, the same way for all. The pool is a mixture of
Gaussians on the sphere, 384 wide, with gamma-distributed difficulty; B is 1 % of it, or --budget.

    python benchmarks/selection.py [--quick] [--n 10000 ...] [--limit-s 300] [--json FILE]
    python benchmarks/selection.py --n 100000 --budget 5000 --choosers "bridgekd spread" ...
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from bridgekd.selection.diversity import find_nearest_earlier, find_nearest_picks
from bridgekd.selection.ranking import rank_normalize
from bridgekd.selection.strategies import STRATEGIES

HERE = Path(__file__).resolve().parent
PEERS = {"apricot": "apricot-select==0.6.1 scikit-learn", "submodlib": "submodlib-py==0.0.3"}
WIDTH, SHARE, ALPHA, SEED = 384, 100, 0.5, 0
JUDGED = 100_000  # rows that distances are judged on; drawn where the pool is larger
MEMORY_GIB = 16  # address space of a chooser; what needs more is named so
REPRESENTATIVE = ("random", "spread", "swapped", "typical", "herding")
# (chooser, alpha, what it is held against: the exact greedy choice of the same rule)
CHOOSERS = (
    ("plain", ALPHA, "bridge"),
    *(
        (f"bridgekd {name}", ALPHA, "bridge")
        for name in STRATEGIES.list_names()
        if name not in ("diverse", "facility_location", "medoids", "domains", *REPRESENTATIVE)
    ),
    ("plain", 0.0, "k-center"),
    ("bridgekd diverse", 0.0, "k-center"),
    ("bridgekd medoids", 0.0, "k-center"),
    ("kmeans", 0.0, "k-center"),
    ("bridgekd facility_location", 0.0, "facility"),
    *((f"bridgekd {name}", 0.0, "facility") for name in REPRESENTATIVE),
    ("apricot", 0.0, "facility"),
    ("submodlib", 0.0, "facility"),
)


@dataclass(frozen=True, slots=True)
class Run:
    """One chooser at one n. `said` is empty, or why there is no result."""

    n: int
    rule: str
    chooser: str
    output: str = ""
    seconds: float = np.nan
    cpu_s: float = np.nan  # where others use the machine, the better figure
    gib: float = np.nan
    scores: float = np.nan  # sum of alpha * d + (1 - alpha) * v at the moment of picking
    mean: float = np.nan  # distance of the pool to the nearest pick
    largest: float = np.nan

    @property
    def facility(self) -> float:
        """Mean over the pool of the similarity (1 + cos) / 2 to the most similar pick."""
        return 1 - self.mean


def make_pool(folder: Path, n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([SEED, n])
    k = int(np.sqrt(n))
    centres = rng.normal(size=(k, WIDTH)).astype(np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    of = rng.choice(k, size=n, p=rng.dirichlet(np.full(k, 0.5)))
    embeddings = rng.standard_normal((n, WIDTH), dtype=np.float32)
    embeddings *= 0.7 / np.sqrt(WIDTH)
    embeddings += centres[of]
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    places = rank_normalize(rng.gamma(2.0, size=n))
    np.save(folder / "embeddings.npy", embeddings)
    np.save(folder / "places.npy", places)
    return embeddings, places


def choose(
    python: Path, chooser: str, alpha: float, data: Path, n_chosen: int, limit_s: float
) -> tuple[str, dict[str, float], np.ndarray]:
    """Why there is no result (or ""), the figures of Run that the process tells, picks."""
    none = np.empty(0, dtype=np.int64)
    with tempfile.TemporaryDirectory() as out:
        job = {
            "chooser": chooser,
            "alpha": alpha,
            "data": str(data),
            "n_chosen": n_chosen,
            "seed": SEED,
            "out": out,
            "memory_gib": MEMORY_GIB,
        }
        command = [str(python), str(HERE / "peers" / "selection_job.py"), json.dumps(job)]
        environment = dict(os.environ, PYTHONPATH=str(HERE.parent / "src"))
        try:
            done = subprocess.run(
                command, env=environment, timeout=limit_s, capture_output=True, text=True
            )
        except subprocess.TimeoutExpired:
            return f"not done in {limit_s:g} s", {}, none
        if done.returncode:
            words = done.stderr.strip().splitlines()[-1:] or [f"ended with {done.returncode}"]
            short = any(name in done.stderr for name in ("MemoryError", "bad_alloc"))
            output = f"out of memory ({MEMORY_GIB} GiB)" if short else words[0][:60]
            return output, {}, none
        figures = json.loads((Path(out) / "result.json").read_text())
        line = {"seconds": figures["s"], "cpu_s": figures["cpu_s"], "gib": figures["gib"]}
        return "", line, np.load(Path(out) / "picks.npy")


def evaluate_worth(
    embeddings: np.ndarray, places: np.ndarray, picks: np.ndarray, alpha: float
) -> dict[str, float]:
    chosen = embeddings[picks]
    scores = alpha * places[picks] + (1 - alpha) * find_nearest_earlier(chosen).distance
    judged = np.arange(len(embeddings))
    if len(embeddings) > JUDGED:
        judged = np.random.default_rng(SEED).permutation(len(embeddings))[:JUDGED]
    distance = find_nearest_picks(embeddings[judged], chosen).distance
    return {
        "scores": float(scores.sum()),
        "mean": float(distance.mean()),
        "largest": float(distance.max()),
    }


def find_peer_python(peer: str, folder: Path) -> Path | None:
    """The interpreter of a virtual environment with the peer; None where it does not install."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    pip = [str(python), "-m", "pip", "install", "-q", *PEERS[peer].split()]
    works = [str(python), "-c", f"import {peer}"]
    for command in (pip, works):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{PEERS[peer]}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            return None
    return python


def print_runs(runs: list[Run], budget: int | None) -> None:
    for n in dict.fromkeys(run.n for run in runs):
        print_table([run for run in runs if run.n == n], f"n = {n:,}, B = {budget or n // SHARE:,}")


def print_table(runs: list[Run], title: str) -> None:
    names = (
        "rule",
        "chooser",
        "s",
        "CPU s",
        "GiB",
        "sum of scores",
        "mean",
        "largest",
        "facility",
        "",
    )
    table = Table(*names, title=title)
    for run in runs:
        against = find_best_known(run, runs)
        cells = [f"{run.seconds:.1f}", f"{run.cpu_s:.1f}", f"{run.gib:.1f}"]
        for name in ("scores", "mean", "largest", "facility"):
            value = getattr(run, name)
            relative = value / getattr(against, name) if against else np.nan
            cells.append(f"{value:.4f} ({relative:.3f})" if against else f"{value:.4f}")
        table.add_row(run.rule, run.chooser, *(cells if not run.output else ["-"] * 7), run.output)
    Console(width=150).print(table)


def find_best_known(run: Run, runs: list[Run]) -> Run | None:
    """What a run is relative to: the plain greedy choice of its rule; where that has no result (or
    the rule is facility location), bridgekd's own.
    """
    own = {"bridge": "bridge_greedy", "k-center": "diverse", "facility": "facility_location"}[
        run.rule
    ]
    for chooser in ("plain", f"bridgekd {own}"):
        for other in runs:
            if (other.rule, other.chooser, other.output) == (run.rule, chooser, ""):
                return other
    return None


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="n = 10k and 100k, 120 s a chooser")
    parser.add_argument("--n", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--budget", type=int, help="B at every n; default: 1 %% of n")
    parser.add_argument("--limit-s", type=float, default=300)
    parser.add_argument(
        "--choosers", nargs="+", help="only these, as 'plain' or 'bridgekd hardest'"
    )
    parser.add_argument("--json", type=Path, help="where to write every run")
    parser.add_argument("--peer-venvs", type=Path, help="a folder with one environment a peer")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    sizes, limit_s = ([10_000, 100_000], 120.0) if args.quick else (args.n, args.limit_s)
    wanted = [c for c in CHOOSERS if not args.choosers or c[0] in args.choosers]
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; at most {limit_s:g} s each")
    runs: list[Run] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.peer_venvs or Path(scratch)
        pythons = {
            peer: find_peer_python(peer, folder / peer)
            for peer in PEERS
            if any(c[0] == peer for c in wanted)
        }
        for n in sizes:
            budget = args.budget or n // SHARE
            pool = make_pool(Path(scratch), n)
            for chooser, alpha, rule in wanted:
                python = pythons.get(chooser, Path(sys.executable))
                if python is None:
                    runs.append(Run(n, rule, chooser, "does not install"))
                    continue
                output, line, picks = choose(python, chooser, alpha, Path(scratch), budget, limit_s)
                figures = {} if output else evaluate_worth(*pool, picks, alpha)
                runs.append(Run(n, rule, chooser, output, **line, **figures))
                print(f"{n} {rule} {chooser}: {output or line}", file=sys.stderr)
    print_runs(runs, args.budget)
    if args.json:
        args.json.write_text(json.dumps([asdict(run) for run in runs], indent=1))


if __name__ == "__main__":
    main()
