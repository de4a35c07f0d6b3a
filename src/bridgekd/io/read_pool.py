"""Read a pool artifact, and the few-shot examples of the teacher's prompt."""

import json
from collections.abc import Iterable, Sequence

from bridgekd.errors import InputError
from bridgekd.grading.answer_type import AnswerType, load_answer_type
from bridgekd.io.artifact_store import Artifact
from bridgekd.io.damage import translate_damage
from bridgekd.io.lazy_rows import LazyRows, open_rows
from bridgekd.io.row_files import read_jsonl
from bridgekd.messages import format_value
from bridgekd.records import Example
from bridgekd.variants import VariantSettings

TASK_FILE = "task.json"


def read_pool(pool: Artifact) -> LazyRows[Example]:
    """Return the examples of the pool. A row is decoded when it is used."""
    return open_rows(pool.path / "pool.parquet", Example)


def read_validation(pool: Artifact) -> LazyRows[Example]:
    """Return the validation examples, which early stopping uses."""
    return open_rows(pool.path / "validation.parquet", Example)


def read_answer_type(pool: Artifact) -> AnswerType:
    """Return the answer type of the pool. A grader that compares labels gets the pool's."""
    with translate_damage(pool.path / TASK_FILE):
        task = json.loads((pool.path / TASK_FILE).read_text())
        settings, labels = VariantSettings.model_validate(task["answer_type"]), task["labels"]
    return load_answer_type(settings).with_labels(labels)


def index_by_id(examples: Iterable[Example], ids: Iterable[str]) -> dict[str, Example]:
    """Return the examples with these ids, by id."""
    requested = set(ids)
    return {e.id: e for e in examples if e.id in requested}


def read_few_shot(artifacts: Sequence[Artifact]) -> list[tuple[str, str, str]]:
    """Return (question, rationale, answer) of every example of teacher.prompt.few_shot."""
    turns = []
    for artifact in artifacts:
        for number, row in read_jsonl(artifact.path):
            for key in ("question", "rationale", "answer"):
                if not isinstance(row.get(key), str | int | float) or row[key] == "":
                    raise InputError(
                        f"{artifact.path} line {number}: The {key!r} of the few-shot example is "
                        f"{format_value(row.get(key))}. Write a text."
                    )
            turns.append((str(row["question"]), str(row["rationale"]), str(row["answer"])))
        artifact.check_unchanged()
    return turns
