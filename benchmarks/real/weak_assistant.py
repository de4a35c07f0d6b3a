"""Does a weaker, more uniform assistant teach a tiny model better than a large teacher does?

    BRIDGEKD_DATA=FOLDER python benchmarks/real/weak_assistant.py [--task tracking]
        [--base base] [--folder weaker] [--seeds 5] [--updates N]

Mentor-KD published GPT-3.5's rationales and those of the T5-large and Flan-T5-large assistants that
had learnt from them. A student is trained from each: the same questions (those that all three
answered correctly), one correct rationale a question, the same seeds and updates, the same
instructed base. Test: paired over seeds and questions. Resumable.
"""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from importers import RecordedRow, read_mentor_kd
from tasks import TASKS, Task, prepare, read, write

from bridgekd.comparison import build_arms, parse_comparison
from bridgekd.grading.answer_extraction import split_answer
from bridgekd.grading.answer_type import load_answer_type
from bridgekd.io.load_recipe import load_recipe
from bridgekd.io.row_files import read_rows
from bridgekd.records import Prediction
from bridgekd.runs.run import build_run_context, open_run
from bridgekd.stats.intervals import holm_correction
from bridgekd.stats.mixed_effects import estimate_difference, estimate_proportion
from bridgekd.teacher.transports import prepare_teacher
from bridgekd.variants import VariantSettings

LARGE = "gpt-3.5"
FILES = {"tracking": "tracking_shuffled_objects", "letters": "last_letter_concatenation"}
SOURCES = {
    LARGE: "mentor-kd/data/main/{}_3_train.json.gz",
    "t5-large": "mentor-kd/data/aug/t5_large/{}_rand3_aug3.json.gz",
    "flan-t5-large": "mentor-kd/data/aug/flan-t5_large/{}_rand3_aug3.json.gz",
}


@dataclass(frozen=True, slots=True)
class Taught:
    """What came of one teacher: what its rationales are like, and right or wrong [seeds, test]."""

    words: float
    distinct: int
    right: np.ndarray


def first_right(path: Path, type_name: str) -> dict[str, RecordedRow]:
    """The first correct recording of every question."""
    found: dict[str, RecordedRow] = {}
    answer_type = load_answer_type(VariantSettings(name=type_name))
    for row in read_mentor_kd(path):
        answer = answer_type.extract_answer(row.text or "", row.choices)
        if answer_type.is_correct(answer, row.answer, row.choices):
            found.setdefault(row.question, row)
    return found


def prepared(task: Task, data: Path, folder: Path, base: Path) -> dict[str, dict[str, str]]:
    """The task's files with the shared questions, a file of recordings a teacher; their texts."""
    prepare(task, data, folder, base)
    told = {
        name: first_right(data / source.format(FILES[task.name]), task.answer_type)
        for name, source in SOURCES.items()
    }
    rows = [
        r for r in read(folder / "train.jsonl") if all(r["question"] in t for t in told.values())
    ]
    write(folder / "train.jsonl", rows)
    texts = {}
    for name, answers in told.items():
        texts[name] = {str(r["question"]): str(answers[str(r["question"])].text) for r in rows}
        lines = [{"question": q, "text": text} for q, text in texts[name].items()]
        write(folder / f"{name}.jsonl", lines)
    return texts


def right_of(recipe_file: Path, teacher: str, seed: int) -> list[bool]:
    """The test answers of the student of one teacher under one seed."""
    folder = recipe_file.parent.resolve()
    overrides = [f"seed={seed}", f"teacher.model={teacher}",
                 f"teacher.transport.recordings={teacher}.jsonl",
                 "teacher.price={input: 0, output: 0}", f"name={teacher}-{seed}"]  # fmt: skip
    recipe = load_recipe(recipe_file, overrides)
    recipe = recipe.model_copy(update={"teacher": prepare_teacher(recipe.teacher, folder)})
    methods = parse_comparison(recipe, folder, ["direct_full"]).methods
    run = open_run(recipe, folder, build_run_context(recipe, folder), methods)
    (arm,) = (arm for arm in build_arms(run, methods) if arm.is_result)
    (made,) = run.predict_all([arm])
    return [p.correct for p in read_rows(made.path / "predictions.parquet", Prediction)]


def likeness(texts: Sequence[str]) -> tuple[float, int]:
    """(words a rationale, distinct runs of three words among them all): fewer is more uniform."""
    told = [re.findall(r"\w+|[^\w\s]", split_answer(text)[0].casefold()) for text in texts]
    threes = {tuple(words[i : i + 3]) for words in told for i in range(len(words) - 2)}
    return float(np.mean([len(words) for words in told])), len(threes)


def table(found: dict[str, Taught]) -> str:
    """Markdown: accuracy of each teacher's students, and their difference from the large one's."""
    others = {
        n: estimate_difference(found[LARGE].right, t.right) for n, t in found.items() if n != LARGE
    }
    adjusted = dict(zip(others, holm_correction([d.p for d in others.values()]), strict=True))
    lines = [
        "| teacher | words | distinct threes | accuracy, % | minus GPT-3.5, points | p (Holm) |"
    ]
    lines += ["|---|---|---|---|---|---|"]
    for name, taught in found.items():
        told = estimate_proportion(taught.right)
        cells = [name, f"{taught.words:.0f}", f"{taught.distinct:,}", _in_percent(told, "")]
        cells += (
            [_in_percent(others[name], "+"), f"{adjusted[name]:.2g}"]
            if name in others
            else ["", ""]
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _in_percent(told: object, sign: str) -> str:
    mean, low, high = (
        format(100 * getattr(told, n), f"{sign}.1f") for n in ("mean", "low", "high")
    )
    return f"{mean} ({low} to {high})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--task", default="tracking", choices=FILES)
    parser.add_argument("--base", type=Path, default=Path("base"))
    parser.add_argument("--folder", type=Path, default=Path("weaker"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--updates", type=int)
    asked = parser.parse_args()
    if "BRIDGEKD_DATA" not in os.environ:
        sys.exit("BRIDGEKD_DATA names no folder of data sets; set it")
    task, folder = TASKS[asked.task], asked.folder / asked.task
    task = replace(task, updates=asked.updates or task.updates)
    texts = prepared(task, Path(os.environ["BRIDGEKD_DATA"]), folder, asked.base)
    print(f"{len(texts[LARGE])} questions, one rationale of each teacher", flush=True)
    right: dict[str, list[list[bool]]] = {name: [] for name in texts}
    for seed in range(asked.seeds):
        for name in texts:
            right[name].append(right_of(folder / f"{task.name}.yaml", name, seed))
            print(f"seed {seed}, {name}: {np.mean(right[name][-1]):.3f}", flush=True)
    found = {
        name: Taught(*likeness(list(said.values())), np.array(right[name], dtype=float))
        for name, said in texts.items()
    }
    print(table(found))


if __name__ == "__main__":
    main()
