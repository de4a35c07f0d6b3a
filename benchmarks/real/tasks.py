"""The tasks of the main jobs: from the published files to a folder with a recipe that runs.

Teachers are recordings: GPT-3.5's correct rationales (Mentor-KD) and PaLM 540B's (Distilling
Step-by-Step). Nothing here was tuned: the numbers of updates follow from a fixed amount of CPU time
a task, the learning rates are those of the sandbox's demo.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from importers import (
    RecordedRow,
    iter_recordings,
    list_examples,
    read_mentor_kd,
    read_palm540b_dss,
    read_self_instruct,
    sample_questions,
    to_row,
    write_jsonl,
)
from pretraining_text import game_of, games_of_tests


@dataclass(frozen=True, slots=True)
class Task:
    """Where a task's questions are, how it is graded and how long its models are trained."""

    name: str
    read: Callable[[Path], Iterator[RecordedRow]]
    train: str
    test: str
    answer_type: str
    teacher: str
    budget: str
    updates: int  # of every student, and of both of the assistant's trainings
    max_new_tokens: int
    n_train: int | None = None  # a part drawn by hash; None: all
    n_test: int | None = None


TASKS = {
    t.name: t
    for t in (
        Task("tracking", read_mentor_kd,
             "mentor-kd/data/main/tracking_shuffled_objects_3_train.json.gz",
             "mentor-kd/data/skeleton/tracking_shuffled_objects_test.json.gz",
             "multiple_choice", "gpt-3.5-turbo", "20%", 80, 224),
        Task("letters", read_mentor_kd,
             "mentor-kd/data/main/last_letter_concatenation_3_train.json.gz",
             "mentor-kd/data/skeleton/last_letter_concatenation_test.json.gz",
             "text", "gpt-3.5-turbo", "20%", 160, 128),
        Task("svamp", read_palm540b_dss, "palm540b-dss/svamp_train.jsonl.gz",
             "palm540b-dss/svamp_test.jsonl.gz", "number", "palm-540b", "20%", 120, 128),
        Task("commonsense", read_palm540b_dss, "palm540b-dss/cqa_train.jsonl.gz",
             "palm540b-dss/cqa_test.jsonl.gz", "multiple_choice", "palm-540b", "10%", 120, 96,
             n_train=2000, n_test=400),
    )
}  # fmt: skip

RECIPE = """\
# Written by benchmarks/real/tasks.py
name: {name}
data:
  train: train.jsonl
  test: test.jsonl
  columns: {{id: id{choices}}}
  answer_type: {answer_type}
  validation_size: 40
teacher:
  model: {teacher}
  transport: {{name: replay, recordings: recordings.jsonl}}
  max_tokens: 512
budget: {{queries: {budget}}}
assistant:
  model: {base}/assistant
  warm_up_size: 10%
  warm_up_train: {{updates: {warm_up}, learning_rate: 1e-3, batch_size: 16, n_evaluations: 2}}
  train: {{updates: {updates}, learning_rate: 1e-3, batch_size: 16, n_evaluations: 2}}
  max_new_tokens: {max_new_tokens}
student:
  model: {base}/student
  instruction_data: instruct.jsonl
  instruction_train: {{updates: 60, learning_rate: 3e-3, batch_size: 16}}
  train: {{updates: {updates}, learning_rate: 3e-3, batch_size: 16, n_evaluations: 2}}
  max_new_tokens: {max_new_tokens}
confidence: {{keep_fraction: 80%}}
store: runs
ledger: ledger.db
device: cpu
seed: 0
"""


def prepare(task: Task, data: Path, folder: Path, base: Path) -> Path:
    """Writes the task's files and its recipe into `folder`; the recipe's path."""
    folder.mkdir(parents=True, exist_ok=True)
    train, recordings = folder / "train.jsonl", folder / "recordings.jsonl"
    _part(data / task.train, task, train, task.n_train, recordings)
    _part(data / task.test, task, folder / "test.jsonl", task.n_test)
    if task.name == "tracking":  # a game of the test set is not trained on, whoever is asked about
        games = games_of_tests(data)
        kept = [row for row in read(train) if game_of(row["question"]) not in games]
        write(train, kept)
    seeds = data / "self-instruct/data/seed_tasks.jsonl.gz"
    write_jsonl(folder / "instruct.jsonl", read_self_instruct(seeds))
    recipe = folder / f"{task.name}.yaml"
    recipe.write_text(
        RECIPE.format(
            name=task.name,
            choices=", choices: choices" if task.answer_type == "multiple_choice" else "",
            answer_type=task.answer_type,
            teacher=task.teacher,
            budget=task.budget,
            base=base.resolve(),
            updates=task.updates,
            warm_up=task.updates // 4,
            max_new_tokens=task.max_new_tokens,
        )
    )
    return recipe


def read(path: Path) -> list[dict[str, object]]:
    """The rows of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, rows: Sequence[dict[str, object]]) -> None:
    """Writes them."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _part(
    source: Path, task: Task, to: Path, n: int | None, recordings: Path | None = None
) -> None:
    """A file's questions, or `n` of them by their hash."""
    rows = list(task.read(source))
    examples = list_examples(rows)
    chosen = None if n is None else sample_questions(examples, n)
    write_jsonl(to, (to_row(e) for e in examples if chosen is None or e.question in chosen))
    if recordings is not None:
        write_jsonl(recordings, iter_recordings(rows))
