"""What `plan --advise` foretells against what then happens, over many small sandbox worlds.

    python benchmarks/advice.py [--folder advice] [--worlds 60] [--workers 1]

A world has its own pool, budget, models, teacher and mix of domains, all drawn from its number. The
pilot is bought and advises; then every arm is really run at the budget and measured on a test set
that the pilot never saw. Resumable: worlds in results.jsonl are not done again, one that was cut
short goes on. What every model answered stays in answers/, so that another way to advise can be
held against the same worlds. Priors and settings were fixed before any world was looked at.
"""

import argparse
import hashlib
import json
import multiprocessing
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from advice_tables import ARMS, told_of

from bridgekd import api, stages
from bridgekd.comparing import arms_of
from bridgekd.config import Recipe
from bridgekd.core.statistics import mcnemar
from bridgekd.edges.recipe import load_recipe
from bridgekd.edges.rows import read_rows
from bridgekd.edges.store import Artifact, Stage
from bridgekd.errors import BadInput
from bridgekd.records import Example, Prediction
from bridgekd.runs import live_of, open_run
from bridgekd.sandbox.domains import DOMAINS
from bridgekd.sandbox.export import ASSISTANTS, TEST_SEED, TRAIN_SEED, export
from bridgekd.sandbox.teacher_server import serve
from bridgekd.sandbox.world import generate

N_VALIDATION, N_TEST, N_INSTRUCTIONS = 100, 800, 500
FIRST_SEED = 5000  # of the worlds' questions, away from the demo's
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
    """Pilot, advice, and then every arm: what was foretold beside what happened. A pilot that
    refuses is a result, too.
    """
    resumed = folder.exists()
    recipe = written(folder, of)
    started = time.process_time()
    row: dict[str, Any] = {"world": asdict(of), "stages": stage_versions()}
    with serve(wrong_rate=of.wrong, seed=of.number) as teacher:
        overrides = [
            f"teacher.base_url={teacher.base_url}",
            f"budget.queries={of.budget}",
            f"assistant.model=models/{of.assistant}",
            f"student.model=models/{of.student}",
            f"seed={of.number}",
            *QUICK,
        ]
        try:
            advised = api.advise(recipe, overrides=overrides)
        except BadInput as e:
            return row | {"refused": str(e)}
        pilot_s = time.process_time() - started
        right = _right(load_recipe(recipe, overrides), folder)
    draws = dict(zip(advised.told["arms"], np.load(advised.folder / "draws.npy"), strict=True))
    _kept(folder, advised.folder, draws, right)
    times = {"pilot_s": pilot_s, "seconds": time.process_time() - started}
    row |= {"told": advised.told} | compared(draws, right, of.number)
    return row | ({} if resumed else times)


def compared(
    draws: dict[str, np.ndarray], right: dict[str, np.ndarray], seed: int
) -> dict[str, Any]:
    """What was foretold, [draws] by arm of the advice, beside answers [questions] by arm of a run.
    The students of chosen questions are held against what is told of random ones.
    """
    seen = {arm: float(answers.mean()) for arm, answers in right.items()}
    foretold = {arm: _measured(draws[arm], seen[ARMS[arm]], seed) for arm in draws}
    foretold["bridge"] = _measured(draws["tutored"], seen["bridge"], seed)
    gain = draws["tutored"] - draws["direct"]
    error = float(np.std(right["random"] - right["direct"]) / N_TEST**0.5)
    noise = np.random.default_rng(seed).normal(0, error, len(gain))
    shown, really = gain + noise, seen["random"] - seen["direct"]
    return {
        "seen": seen,
        "foretold": foretold,
        "gain": _ends(shown) | {"seen": really, "place": float((shown < really).mean())},
        "p": {a: _differ(right["random"], right[a]) for a in ("direct", "bridge")},
    }


def stage_versions() -> str:
    """A digest of what all stages mean: rows of different ones are not of one advice."""
    found = sorted((n, s.version) for n, s in vars(stages).items() if isinstance(s, Stage))
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()[:12]


def _kept(
    world: Path, advice: Path, draws: dict[str, np.ndarray], right: dict[str, np.ndarray]
) -> None:
    """answers/NAME.npz beside the world: right or wrong by model of the pilot [models, questions],
    in the order of told's `pilot`, and by arm of the runs; and the drawn accuracies.
    """
    predictions = Artifact("advise", "", advice).get_inputs("predictions")
    pilot = np.array([_correct(p.path) for p in predictions], dtype=bool)
    (world.parent / "answers").mkdir(exist_ok=True)
    arrays = {f"draws_{a}": d for a, d in draws.items()}
    arrays |= {f"right_{a}": r.astype(bool) for a, r in right.items()}
    np.savez_compressed(world.parent / "answers" / f"{world.name}.npz", pilot=pilot, **arrays)


def _right(recipe: Recipe, folder: Path) -> dict[str, np.ndarray]:
    """Right or wrong on each test question, by arm; students alone."""
    run = open_run(recipe, folder, live_of(recipe, folder), METHODS)
    arms = arms_of(run, METHODS)
    found = {}
    for name in (*ARMS.values(), "bridge"):
        made = run.answered(arms[name], run.pool(), run.test())
        found[name] = np.array(_correct(made.path), dtype=float)
    return found


def _correct(folder: Path) -> list[bool]:
    return [r.correct for r in read_rows(folder / "predictions.parquet", Prediction)]


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
    """Every world's result; those that are not there yet are made. SystemExit where those that are
    there came from stages that meant something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "results.jsonl"
    lines = file.read_text().splitlines() if file.is_file() else []
    known = {row["world"]["number"]: row for row in map(json.loads, lines)}
    if any(row.get("stages") != stage_versions() for row in known.values()):
        raise SystemExit(f"{file} has worlds of another version's stages; take another --folder")
    todo = [(folder, number) for number in range(n_worlds) if number not in known]
    with multiprocessing.get_context("spawn").Pool(n_workers) as pool, open(file, "a") as log:
        for row in pool.imap_unordered(_work, todo):
            print(json.dumps(row), file=log, flush=True)
            known[row["world"]["number"]] = row
            print(f"{len(known)} of {n_worlds}: {_line(row)}", flush=True)
    return [known[number] for number in range(n_worlds)]


def _line(row: dict[str, Any]) -> str:
    number = row["world"]["number"]
    if "refused" in row:
        return f"{number} no advice: {row['refused']}"
    told, seen = row["told"], row["seen"]
    shown = ", ".join(f"{a} {100 * seen[ARMS[a]]:.1f}" for a in told["arms"])
    return f"{number} {told['verdict']} ({told['best']['tutored']:.2f}); {shown}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("advice"))
    parser.add_argument("--worlds", type=int, default=60)
    parser.add_argument("--workers", type=int, default=1)
    asked = parser.parse_args()
    print(told_of(results_of(asked.folder.resolve(), asked.worlds, asked.workers)))


if __name__ == "__main__":
    main()
