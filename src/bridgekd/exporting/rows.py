"""Lessons as the prompt-completion rows that TRL's SFTTrainer takes, in JSON lines and Parquet."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bridgekd.records import Lesson
from bridgekd.stages.lessons import train_row

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("prompt", _MESSAGES, nullable=False),
        pa.field("completion", _MESSAGES, nullable=False),
        pa.field("rationale", pa.string()),
        pa.field("answer", pa.string()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("kept", pa.bool_(), nullable=False),
    ]
)


def write_data(folder: Path, lessons: Sequence[Lesson]) -> None:
    """train.jsonl and train.parquet, the same rows in the same order."""
    folder.mkdir(parents=True)
    rows = [completion_row(lesson) for lesson in lessons]
    with open(folder / "train.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), folder / "train.parquet")


def completion_row(lesson: Lesson) -> dict[str, Any]:
    """The row of one lesson: its completion is the very text that was trained on."""
    written = "".join(span.text for span in train_row(lesson, 1.0).spans)
    return {
        "id": lesson.id,
        "prompt": [{"role": m.role, "content": m.content} for m in lesson.prompt],
        "completion": [{"role": "assistant", "content": written}],
        "rationale": lesson.rationale,
        "answer": lesson.answer,
        "source": lesson.source,
        "kept": True,
    }
