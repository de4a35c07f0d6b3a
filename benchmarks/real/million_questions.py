"""A pool of a million real questions: seconds and peak memory of load_pool, score_pool, select and
plan, each in a process of its own.

    BRIDGEKD_DATA=FOLDER python benchmarks/real/million_questions.py [--rows 1000000]
        [--scored 20000] [--folder million] [--only load,select]

The pool is the training questions of GSM8K, SVAMP and CommonsenseQA again and again, with other
numbers in them and a case number before. A pass of a model over a million questions is hours of a
CPU, so score_pool works on the first `--scored` rows with an untrained model of the shape of the
sandbox's student; its scores and embeddings, repeated with noise, are what select works on at full
size. `plan` knows no scores, so it weighs every question of the pool. The peak includes the
libraries.
"""

import argparse
import json
import os
import random
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from importers import read_mentor_kd

from bridgekd import api
from bridgekd.io.artifact_store import Artifact
from bridgekd.io.load_recipe import load_recipe
from bridgekd.io.row_files import write_columns
from bridgekd.records import Score
from bridgekd.runs.run import Run, build_run_context, open_run
from bridgekd.stages.load_data import LoadPoolStats

SETS = tuple(
    f"mentor-kd/data/skeleton/{name}_train.json.gz" for name in ("gsm8k", "svamp", "commonsense_qa")
)
RECIPE = """\
name: million
data: {train: %s.jsonl, test: test.jsonl, answer_type: text, validation_size: 200}
teacher: {model: gpt-4o, expected_completion_tokens: [100, 200]}
budget: {queries: 1%%}
assistant: {model: model, warm_up_size: 0}
runtime: {assistant_batch_size: 64}
student: {model: model}
store: runs
device: cpu
"""
STEPS = ("make", "load", "score", "select", "plan")


def generate_questions(data: Path, n: int) -> Iterator[dict[str, str]]:
    """`n` rows, drawn again and again from the same questions."""
    found = [row for name in SETS for row in read_mentor_kd(data / name)]
    rng = random.Random(0)
    for i in range(n):
        row = found[i % len(found)]
        edited = re.sub(r"\d", lambda _: str(rng.randint(1, 9)), row.question)
        yield {"question": f"Case {i}: {edited}", "answer": row.answer}


def make(data: Path, folder: Path, n_rows: int, n_scored: int) -> None:
    """The files: the pool, its first rows, a test set, a model, two recipes."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "sandbox_models"))
    from train_base_models import MODEL_SPECS, make_model
    from world_tokenizer import make_tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    for name, n in (("pool", n_rows), ("slice", n_scored), ("test", 100)):
        with open(folder / f"{name}.jsonl", "w") as file:
            file.writelines(json.dumps(row) + "\n" for row in generate_questions(data, n))
        (folder / f"{name}.yaml").write_text(RECIPE % name)
    tokenizer = make_tokenizer()
    make_model(MODEL_SPECS["student"], tokenizer, 0).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")


def run_of(folder: Path, name: str) -> Run:
    """The run of the pool or of its slice."""
    recipe = load_recipe(folder / f"{name}.yaml", [f"name={name}"])
    return open_run(recipe, folder, build_run_context(recipe, folder), [recipe.method])


def load(folder: Path) -> None:
    """load_pool on the whole pool."""
    run_of(folder, "pool").load_pool()


def score(folder: Path) -> None:
    """score_pool on the slice, which load_pool has made before."""
    run = run_of(folder, "slice")
    run.score_pool(run.load_pool(), run.assistant)


def select(folder: Path) -> None:
    """select on the whole pool, by the slice's scores again and again."""
    run, part = run_of(folder, "pool"), run_of(folder, "slice")
    pool = run.load_pool()
    scores, _ = part.score_pool(part.load_pool(), part.assistant)
    run.select_questions(pool, _repeat(scores, pool, folder))


def plan(folder: Path) -> None:
    """What `bridgekd plan` works out for the whole pool."""
    line = api.plan(folder / "pool.yaml")
    assert line.train_cost is not None and line.train_cost.n_queries


def _repeat(scores: Artifact, pool: Artifact, folder: Path) -> Artifact:
    """Scores and embeddings of the slice at the pool's size, with noise that tells rows apart."""
    n, rng, out = (
        pool.read_stats(LoadPoolStats).n_pool,
        np.random.default_rng(0),
        folder / "repeated",
    )
    out.mkdir(exist_ok=True)
    known = np.load(scores.path / "embeddings.npy")
    vectors = np.lib.format.open_memmap(
        out / "embeddings.npy", mode="w+", dtype=np.float32, shape=(n, known.shape[1])
    )
    for at in range(0, n, 8192):
        rows = np.arange(at, min(at + 8192, n)) % len(known)
        noisy = known[rows] + rng.normal(0, 0.02, (len(rows), known.shape[1])).astype(np.float32)
        vectors[at : at + len(rows)] = noisy / np.linalg.norm(noisy, axis=1, keepdims=True)
    vectors.flush()
    ids = np.array([f"{i:07d}" for i in range(n)], dtype=object)
    write_columns(out / "scores.parquet", Score, {"id": ids, "difficulty": rng.random(n)})
    return Artifact("score_pool", "score_pool:repeated", out)


def measure_step(step: str, work: Callable[[], None]) -> None:
    """Prints what the step took in this process."""
    wall, cpu = time.monotonic(), time.process_time()
    work()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line = {"step": step, "cpu_s": round(time.process_time() - cpu, 1)}
    print(json.dumps(line | {"wall_s": round(time.monotonic() - wall, 1), "peak_mib": round(peak)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--scored", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, default=Path("million"))
    parser.add_argument("--only", default=",".join(STEPS))
    parser.add_argument("--step", choices=STEPS, help="this one alone, in this process")
    args = parser.parse_args()
    if "BRIDGEKD_DATA" not in os.environ:
        sys.exit("BRIDGEKD_DATA names no folder of data sets; set it")
    data, folder = Path(os.environ["BRIDGEKD_DATA"]), args.folder.resolve()
    works: dict[str, Callable[[], None]] = {
        "make": lambda: make(data, folder, args.rows, args.scored),
        "load": lambda: load(folder),
        "score": lambda: score(folder),
        "select": lambda: select(folder),
        "plan": lambda: plan(folder),
    }
    if args.step:
        measure_step(args.step, works[args.step])
        return
    for step in args.only.split(","):
        arguments = ["--rows", str(args.rows), "--scored", str(args.scored)]
        command = [sys.executable, __file__, "--folder", str(folder), "--step", step, *arguments]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
