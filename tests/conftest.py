"""Fakes that many tests share: a small world on disk, and stages that only count."""

import json
from pathlib import Path

import pytest


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def task(tmp_path):
    """A folder with a recipe that plans: real data files, a folder that looks like a model."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    rows = [{"question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(40)]
    write_jsonl(tmp_path / "train.jsonl", rows[:30])
    write_jsonl(tmp_path / "test.jsonl", rows[30:])
    (tmp_path / "task.yaml").write_text(
        "data: {train: train.jsonl, test: test.jsonl, answer_kind: number}\n"
        "teacher: {model: large, price: {input: 2.5, output: 10}}\n"
        "budget: {queries: 5, usd: 1}\n"
        "assistant: {model: model}\n"
        "student: {model: model}\n"
    )
    return tmp_path
