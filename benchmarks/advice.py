"""What `plan --advise` foretells against what then happens, over many small sandbox worlds.

    python benchmarks/advice.py [--folder advice] [--worlds 60] [--workers 1]

A world has its own pool, budget, models, teacher and mix of domains, all drawn from its number. The
pilot is bought and advises; then every arm is really run at the budget and measured on a test set
that the pilot never saw. Resumable: worlds in results.jsonl are not done again, one that was cut
short goes on. Priors and settings were fixed before any world was looked at.
"""

import argparse
import json
import multiprocessing
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from bridgekd import api
from bridgekd.comparing import arms_of
from bridgekd.config import Recipe
from bridgekd.core.statistics import mcnemar, wilson
from bridgekd.edges.recipe import load_recipe
from bridgekd.edges.rows import read_rows
from bridgekd.records import Example, Prediction
from bridgekd.runs import live_of, open_run
from bridgekd.sandbox.domains import DOMAINS
from bridgekd.sandbox.export import ASSISTANTS, TEST_SEED, TRAIN_SEED, export
from bridgekd.sandbox.teacher_server import serve
from bridgekd.sandbox.world import generate

N_VALIDATION, N_TEST, N_INSTRUCTIONS = 100, 800, 500
FIRST_SEED = 5000  # of the worlds' questions, away from the demo's
ARMS = {
    "tutored": "random",
    "direct": "direct",
    "answers_only": "answers_only",
    "instructed": "student_instructed",
    "base": "student_base",
}
METHODS = ("bridge", "random", "direct", "answers_only")
QUICK = (
    "student.train.epochs=4",
    "student.train.batch_size=32",
)  # the demo's updates, half its rows


@dataclass(frozen=True, slots=True)
class World:
    """One world; `domains` is one of them, or all."""

    number: int
    n_pool: int
    budget: int
    assistant: str
    student: str
    wrong: float
    domains: str


def world(number: int) -> World:
    """The world of this number."""
    rng = np.random.default_rng([2512, number])
    return World(
        number=number,
        n_pool=int(rng.choice([500, 1000, 1500])),
        budget=int(rng.choice([40, 80, 160])),
        assistant=str(rng.choice(ASSISTANTS)),
        student=str(rng.choice(["student", "student", "assistant-small"])),
        wrong=float(rng.choice([0.1, 0.4])),
        domains=str(rng.choice(["all", "all", "all", *DOMAINS])),
    )


def written(folder: Path, of: World) -> Path:
    """The world as a user's files; the recipe's path."""
    sizes = {"n_validation": N_VALIDATION, "n_instructions": N_INSTRUCTIONS}
    recipe = export(folder, n_pool=1, n_test=1, **sizes, seed=of.number)
    train = _rows(of.n_pool + N_VALIDATION, TRAIN_SEED + FIRST_SEED + of.number, of.domains, [])
    test = _rows(N_TEST, TEST_SEED + FIRST_SEED + of.number, of.domains, train)
    for name, rows in (("train", train), ("test", test)):
        columns = [{k: getattr(e, k) for k in ("id", "question", "answer", "domain")} for e in rows]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(c) + "\n" for c in columns))
    return recipe


def _rows(n: int, seed: int, domains: str, known: Sequence[Example]) -> list[Example]:
    """Questions of one domain, or of all in the world's shares."""
    among = n if domains == "all" else 8 * n
    rows = generate(among, seed, exclude={e.question for e in known})
    return [e for e in rows if domains in ("all", e.domain)][:n]


def carried_out(folder: Path, of: World) -> dict[str, Any]:
    """Pilot, advice, and then every arm: what was foretold beside what happened."""
    recipe = written(folder, of)
    started = time.process_time()
    with serve(wrong_rate=of.wrong, seed=of.number) as teacher:
        overrides = [
            f"teacher.base_url={teacher.base_url}",
            f"budget.queries={of.budget}",
            f"assistant.model=models/{of.assistant}",
            f"student.model=models/{of.student}",
            f"seed={of.number}",
            *QUICK,
        ]
        advised = api.advise(recipe, overrides=overrides)
        pilot_s = time.process_time() - started
        right = _right(load_recipe(recipe, overrides), folder)
    seen = {arm: float(answers.mean()) for arm, answers in right.items()}
    draws = dict(zip(advised.told["arms"], np.load(advised.folder / "draws.npy"), strict=True))
    foretold = {arm: _measured(draws[arm], seen[ARMS[arm]], of.number) for arm in draws}
    gain = draws["tutored"] - draws["direct"]
    error = float(np.std(right["random"] - right["direct"]) / N_TEST**0.5)
    noise = np.random.default_rng(of.number).normal(0, error, len(gain))
    return {
        "world": asdict(of),
        "told": {k: v for k, v in advised.told.items() if k != "pilot"},
        "pilot": advised.told["pilot"],
        "seen": seen,
        "foretold": foretold,
        "gain": _ends(gain + noise) | {"seen": seen["random"] - seen["direct"]},
        "p": {a: _differ(right["random"], right[a]) for a in ("direct", "bridge")},
        "pilot_s": pilot_s,
        "seconds": time.process_time() - started,
    }


def _right(recipe: Recipe, folder: Path) -> dict[str, np.ndarray]:
    """Right or wrong on each test question, by arm; students alone."""
    run = open_run(recipe, folder, live_of(recipe, folder), METHODS)
    arms = arms_of(run, METHODS)
    found = {}
    for name in (*ARMS.values(), "bridge"):
        made = run.answered(arms[name], run.pool(), run.test())
        rows = read_rows(made.path / "predictions.parquet", Prediction)
        found[name] = np.array([r.correct for r in rows], dtype=float)
    return found


def _measured(draws: np.ndarray, seen: float, seed: int) -> dict[str, float]:
    """The interval of what N_TEST questions would show, as `seen` is of those, too."""
    shown = np.random.default_rng(seed).binomial(N_TEST, draws) / N_TEST
    return _ends(shown) | {"seen": seen, "place": float((shown < seen).mean())}


def _differ(one: np.ndarray, other: np.ndarray) -> float:
    return mcnemar((one > 0.5).tolist(), (other > 0.5).tolist())


def _ends(draws: np.ndarray) -> dict[str, float]:
    low, high = np.quantile(draws, [0.025, 0.975])
    return {"mean": float(draws.mean()), "low": float(low), "high": float(high)}


def _work(task: tuple[Path, int]) -> dict[str, Any]:
    import torch

    torch.set_num_threads(1)
    folder, number = task
    found = carried_out(folder / f"world-{number}", world(number))
    shutil.rmtree(folder / f"world-{number}")
    return found


def results_of(folder: Path, n_worlds: int, n_workers: int) -> list[dict[str, Any]]:
    """Every world's result; those that are not there yet are made."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "results.jsonl"
    lines = file.read_text().splitlines() if file.is_file() else []
    known = {row["world"]["number"]: row for row in map(json.loads, lines)}
    todo = [(folder, number) for number in range(n_worlds) if number not in known]
    with multiprocessing.get_context("spawn").Pool(n_workers) as pool, open(file, "a") as log:
        for row in pool.imap_unordered(_work, todo):
            print(json.dumps(row), file=log, flush=True)
            known[row["world"]["number"]] = row
            print(f"{len(known)} of {n_worlds}: {_line(row)}", flush=True)
    return [known[number] for number in range(n_worlds)]


def _line(row: dict[str, Any]) -> str:
    of, told, seen = row["world"], row["told"], row["seen"]
    shown = ", ".join(f"{a} {100 * seen[ARMS[a]]:.1f}" for a in told["arms"])
    return f"{of['number']} {told['verdict']} ({told['best']['tutored']:.2f}); {shown}"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: how often intervals hold, how verdicts turned out, what following them costs."""
    lines = ["| foretold | worlds | held by the 95 % interval | mean width | mean error |"]
    lines += ["|---|---|---|---|---|"]
    kinds = {arm: [r["foretold"][arm] for r in rows if arm in r["foretold"]] for arm in ARMS}
    kinds["tutored - direct"] = [r["gain"] for r in rows]
    for name, found in kinds.items():
        held = sum(f["low"] <= f["seen"] <= f["high"] for f in found)
        width = fmean(100 * (f["high"] - f["low"]) for f in found)
        error = fmean(100 * (f["seen"] - f["mean"]) for f in found)
        lines.append(
            f"| {name} | {len(found)} | {_share(held, len(found))} | {width:.1f} | {error:+.1f} |"
        )
    lines += ["", "| verdict | worlds | right | mean of tutored less the best other |"]
    lines += ["|---|---|---|---|"]
    for verdict, n in Counter(r["told"]["verdict"] for r in rows).most_common():
        those = [r for r in rows if r["told"]["verdict"] == verdict]
        right = sum(_lead(r) > 0 for r in those)
        right = n - right if verdict == "no assistant" else right
        shown = "" if verdict == "cannot tell" else _share(right, n)
        lead = 100 * fmean(_lead(r) for r in those)
        lines.append(f"| {verdict} | {n} | {shown} | {lead:+.1f} |")
    lines += ["", "| what is done | mean points below the best arm | largest |", "|---|---|---|"]
    for name, policy in POLICIES.items():
        lost = [100 * (_top(r) - r["seen"][policy(r)]) for r in rows]
        lines.append(f"| {name} | {fmean(lost):.1f} | {max(lost):.1f} |")
    seconds = fmean(r["seconds"] for r in rows)
    lines.append(f"\n{seconds:.0f} processor seconds a world, of which the pilot "
                 f"{fmean(r['pilot_s'] for r in rows):.0f}.")  # fmt: skip
    return "\n".join(lines)


def _advised(row: dict[str, Any], otherwise: str) -> str:
    """The arm that the advice names; where it cannot tell, another."""
    told = row["told"]
    return otherwise if told["verdict"] == "cannot tell" else ARMS[told["leader"]]


POLICIES = {
    "always bridge": lambda row: "bridge",
    "always random": lambda row: "random",
    "always direct": lambda row: "direct",
    "always answers_only": lambda row: "answers_only",
    "the advice, else bridge": lambda row: _advised(row, "bridge"),
    "the advice, else random": lambda row: _advised(row, "random"),
    "the likeliest arm, told or not": lambda row: _likeliest(row["told"]["best"]),
}  # fmt: skip


def _likeliest(best: dict[str, float]) -> str:
    return ARMS[max(best, key=best.__getitem__)]


def _top(row: dict[str, Any]) -> float:
    return max(row["seen"][arm] for arm in (*ARMS.values(), "bridge"))


def _lead(row: dict[str, Any]) -> float:
    others = [row["seen"][name] for arm, name in ARMS.items() if arm != "tutored"]
    return float(row["seen"]["random"] - max(others))


def _share(k: int, n: int) -> str:
    low, high = wilson(k, n)
    return f"{k} of {n}: {k / n:.0%} ({low:.0%} to {high:.0%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("advice"))
    parser.add_argument("--worlds", type=int, default=60)
    parser.add_argument("--workers", type=int, default=1)
    asked = parser.parse_args()
    print(table(results_of(asked.folder.resolve(), asked.worlds, asked.workers)))


if __name__ == "__main__":
    main()
