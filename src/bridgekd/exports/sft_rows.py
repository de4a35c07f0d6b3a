"""Training examples as prompt-completion rows of TRL's SFTTrainer, in JSON lines and Parquet."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from bridgekd.records import TrainingExample
from bridgekd.stages.training_examples import build_training_sequence

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
        pa.field("loss_start", pa.int64(), nullable=False),
        pa.field("loss_end", pa.int64()),
    ]
)


class MessageRow(TypedDict):
    """A chat message."""

    role: str
    content: str


class SftRow(TypedDict):
    """A row of the exported data: prompt and completion as in TRL, and the parts of them."""

    id: str
    prompt: list[MessageRow]
    completion: list[MessageRow]
    rationale: str | None
    answer: str | None
    source: str
    kept: bool
    loss_start: int
    loss_end: int | None


def write_sft_rows(folder: Path, examples: Sequence[TrainingExample]) -> None:
    """Write train.jsonl and train.parquet with the same rows in the same order."""
    folder.mkdir(parents=True)
    rows = [build_sft_row(example) for example in examples]
    with open(folder / "train.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), folder / "train.parquet")


def build_sft_row(example: TrainingExample) -> SftRow:
    """Return the row of a training example. Its completion is the complete training target."""
    completion = "".join(span.text for span in build_training_sequence(example, 1.0).spans)
    return SftRow(
        id=example.id,
        prompt=[MessageRow(role=m.role, content=m.content) for m in example.prompt],
        completion=[MessageRow(role="assistant", content=completion)],
        rationale=example.rationale,
        answer=example.answer,
        source=example.source,
        kept=True,
        loss_start=example.loss_start,
        loss_end=example.loss_end,
    )
