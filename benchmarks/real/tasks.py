"""The tasks of the main job: one table, and from it a folder with a recipe that runs.

Teachers are recordings: the published answers of real large models. Every task has the settings of
RECIPE, which were set beforehand and are not tuned: choose_settings.py is for the student's
learning rate, on the validation questions of TUNING_TASK, which is in no claim.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from importers import (
    RecordedRow,
    iter_recordings,
    list_examples,
    read_json_file,
    read_mentor_kd,
    read_palm540b_dss,
    read_recorded_rows,
    read_self_instruct,
    sample_questions,
    to_row,
    write_jsonl,
)

from bridgekd.lm.load import has_fast_bfloat16
from bridgekd.prompts import ANSWER_PREFIX
from bridgekd.records import Example

ReadRows = Callable[[Path, Path], Iterator[RecordedRow]]  # (file, folder of all data)
TUNING_TASK = "date"


@dataclass(frozen=True, slots=True)
class Task:
    """Where the questions of a task are, and how they are graded.

    Without `test`, `n_test` questions of `train` are the test set, chosen by their hash. `n_pool`
    questions are the pool. `max_new_tokens` is above the longest 5 % of the teacher's
    rationales.
    """

    read: ReadRows
    train: str
    test: str | None
    answer_type: str
    teacher: str
    max_new_tokens: int
    n_pool: int = 400
    n_test: int = 300
    price: str = ""  # dollars per million tokens, where the package knows no price of the teacher


def read_predictions(path: Path, data: Path, *, model: str, style: str) -> Iterator[RecordedRow]:
    """Yield one model's answers from a file with the answers of several models."""

    def parse(row: Mapping[str, Any]) -> Iterator[RecordedRow]:
        if row["model"] != model or row["style"] != style:
            return
        question, choices, gold = row["question"], tuple(row.get("options", ())), row["gold"]
        text = row["text"].strip()
        if row["answer"] is not None and ANSWER_PREFIX not in text:
            text += f"\n{ANSWER_PREFIX} {row['answer']}"
        yield RecordedRow(question, gold, choices, text, flag=row["correct"])

    return read_recorded_rows(path, parse)


def read_pubmedqa_answers(path: Path, data: Path) -> Iterator[RecordedRow]:
    """Yield the questions with their abstracts; half of them have an answer of text-davinci-002."""
    abstracts = read_json_file(data / "pubmedqa/data/ori_pqal.json.gz")
    answers = {
        row.question: row
        for row in read_predictions(path, data, model="text-davinci-002", style="step_by_step")
    }
    for row in abstracts.values():
        found = answers.get(row["QUESTION"])
        question = "\n".join([*row["CONTEXTS"], f"Question: {row['QUESTION']}"])
        text = None if found is None else found.text
        choices = ("yes", "no", "maybe")
        yield RecordedRow(question, row["final_decision"], choices, text)


def _mentor(name: str, answer_type: str, max_new_tokens: int, n_test: int) -> Task:
    return Task(
        lambda path, data: read_mentor_kd(path),
        f"mentor-kd/data/main/{name}_3_train.json.gz",
        f"mentor-kd/data/skeleton/{name}_test.json.gz",
        answer_type, "gpt-3.5-turbo", max_new_tokens, n_test=n_test,
    )  # fmt: skip


def _palm(name: str, answer_type: str, n_test: int) -> Task:
    return Task(
        lambda path, data: read_palm540b_dss(path),
        f"palm540b-dss/{name}_train.jsonl.gz",
        f"palm540b-dss/{name}_test.jsonl.gz",
        answer_type, "palm-540b", 160, n_test=n_test,
    )  # fmt: skip


def _mmlu(field: str) -> Task:
    read = partial(read_predictions, model="gpt-4o-2024-05", style="cot")
    file = f"mmlu-pro-cot/predictions/{field}.jsonl.gz"
    return Task(read, file, None, "multiple_choice", "gpt-4o-2024-05-13", 512)


TASKS = {
    "date": _mentor("date_understanding", "multiple_choice", 160, 100),
    "svamp": _palm("svamp", "number", 200),
    "tracking": _mentor("tracking_shuffled_objects", "multiple_choice", 160, 225),
    "letters": _mentor("last_letter_concatenation", "text", 128, 150),
    "commonsense": _palm("cqa", "multiple_choice", 400),
    "strategy": _mentor("strategy_qa", "text", 160, 400),
    "gsm8k": Task(
        partial(read_predictions, model="gpt-4", style="cot"),
        "faithful-cot/predictions/gsm8k.jsonl.gz", None, "number", "gpt-4", 192,
        price="{input: 30, output: 60}",  # OpenAI, 2023-03
    ),
    "medical": _mmlu("medical"),
    "legal": _mmlu("legal"),
    "financial": _mmlu("financial"),
    "pubmedqa": Task(
        read_pubmedqa_answers, "pubmedqa-cot/predictions/pubmedqa_test.jsonl.gz", None,
        "multiple_choice", "text-davinci-002", 224, 
        price="{input: 20, output: 20}",  # OpenAI, 2023-01
    ),
}  # fmt: skip

RECIPE = """\
# Written by benchmarks/real/tasks.py
name: {name}-{seed}
data:
  train: train.jsonl
  test: test.jsonl
  columns: {{id: id{choices}}}
  answer_type: {answer_type}
  validation_size: 40
teacher:
  model: {teacher}{price}
  transport: {{name: replay, recordings: recordings.jsonl}}
  max_tokens: 1024
budget: {{queries: 20%}}
assistant:
  model: {models}/qwen2.5-coder-0.5b-instruct
  lora: {{r: 16}}
  warm_up_size: 10%
  warm_up_train: {{updates: 8, learning_rate: 5e-4, batch_size: 8, n_evaluations: 1}}
  train: {{updates: 24, learning_rate: 5e-4, batch_size: 8, n_evaluations: 1}}
  max_new_tokens: {max_new_tokens}
student:
  model: {models}/smollm2-135m-instruct
  instruction_data: instruct.jsonl
  instruction_train: {{updates: 24, learning_rate: 4e-4, batch_size: 8, max_length: 384}}
  train: {{updates: 48, learning_rate: 4e-4, batch_size: 8, n_evaluations: 1}}
  max_new_tokens: {max_new_tokens}
runtime: {{precision: {precision}}}
store: ../store
ledger: ledger.db
device: {device}
seed: {seed}
"""


def write_task(
    name: str, *, data: Path, models: Path, folder: Path, device: str, seed: int
) -> Path:
    """Write the files and the recipe of a task into `folder`. Return the recipe's path.

    A test question is never in the pool: tracking has the same games in both published files.
    """
    task = TASKS[name]
    rows = list(task.read(data / task.train, data))
    examples = list_examples(rows)
    if task.test is None:
        with_answer = {row.question for row in rows if row.text is not None}
        in_test = sample_questions(examples, task.n_test)
        tests = [e for e in examples if e.question in in_test][: task.n_test]
        pool = [e for e in examples if e.question not in in_test and e.question in with_answer]
    else:
        tests = _sample(list_examples(task.read(data / task.test, data)), task.n_test)
        in_test = {_get_game(e.question) for e in tests}
        pool = [e for e in examples if _get_game(e.question) not in in_test]
    pool = _sample(pool, task.n_pool)
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / "train.jsonl", map(to_row, pool))
    write_jsonl(folder / "test.jsonl", map(to_row, tests))
    write_jsonl(folder / "recordings.jsonl", iter_recordings(rows))
    seeds = data / "self-instruct/data/seed_tasks.jsonl.gz"
    write_jsonl(folder / "instruct.jsonl", read_self_instruct(seeds))
    recipe = folder / f"{name}-{seed}.yaml"
    text = RECIPE.format(
        name=name,
        choices=", choices: choices" if task.answer_type == "multiple_choice" else "",
        answer_type=task.answer_type,
        teacher=task.teacher,
        price=f"\n  price: {task.price}" if task.price else "",
        models=models.resolve(),
        max_new_tokens=task.max_new_tokens,
        precision="bfloat16" if has_fast_bfloat16() else "auto",
        device=device,
        seed=seed,
    )
    recipe.write_text(text, encoding="utf-8")
    return recipe


def _sample(examples: Sequence[Example], n: int) -> list[Example]:
    """Return `n` examples chosen by the hash of their question, in their order; all if fewer."""
    if n < len({e.question for e in examples}):
        chosen = sample_questions(examples, n)
        examples = [e for e in examples if e.question in chosen]
    return list(examples[:n])


def _get_game(question: str) -> str:
    """Return a question without its last sentence, which asks about one of the players."""
    story, is_game, _ = question.partition(" At the end of the ")
    return story if is_game else question
