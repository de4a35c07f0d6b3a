"""Decisions of single stages: which rationales are kept, and how a student is trained on them."""

import json
from pathlib import Path

import pytest

import bridgekd
from answer_types import get_type
from bridgekd.grading.grade import check_rationale
from bridgekd.io.artifact_store import Artifact
from bridgekd.io.read_pool import read_answer_type
from bridgekd.io.row_files import read_rows, write_rows
from bridgekd.recipe import ColumnNames, TeacherOptions, TrainOptions
from bridgekd.records import Example, Rationale, TargetSpan
from bridgekd.stages.load_data import LoadPoolSettings, load_pool
from bridgekd.stages.row_settings import QuestionRows, RationaleRows
from bridgekd.stages.run_context import RunContext
from bridgekd.stages.train import TrainSettings, _build_rows, describe_long_targets
from bridgekd.variants import VariantSettings

CONTEXT = RunContext("run", TeacherOptions(model="none"), Path("none.db"))

BIRD = Example("b", "Which flies?", "jay", ("fox", "jay"))


@pytest.mark.parametrize(
    ("text", "state", "rule", "reason"),
    [
        ("Birds fly.\nAnswer: (B)", "answered", "correct", ""),
        ("Foxes fly.\nAnswer: (A)", "answered", "correct", "wrong answer: fox, not jay"),
        ("Foxes fly.\nAnswer: (A)", "answered", "all", ""),
        ("I wonder.", "answered", "correct", "no answer"),
        ("Answer: (B)", "answered", "all", "no rationale"),
        ("Birds fly.\nAnswer: (B)", "truncated", "all", "truncated"),
        ("", "refused", "all", "refused"),
    ],
)
def test_rationale_is_kept_or_dropped_with_a_reason(text, state, rule, reason):
    row = check_rationale(BIRD, text, get_type("multiple_choice"), "teacher", rule, state=state)
    assert (row.kept, row.reason) == (not reason, reason)


@pytest.fixture
def rationales(tmp_path):
    """A pool of one question, and a rationale of the assistant that ends in the wrong answer."""
    rationale = Rationale("b", "Foxes fly.", "fox", "assistant", True)
    dropped = Rationale("b", "", "", "assistant", False, "no rationale")
    write_rows(tmp_path / "pool.parquet", Example, [BIRD])
    write_rows(tmp_path / "rationales.parquet", Rationale, [rationale, dropped])
    (tmp_path / "task.json").write_text(
        json.dumps({"answer_type": {"name": "multiple_choice"}, "labels": []})
    )
    return Artifact("both", "x", tmp_path)


def build_rows(artifact, target_format="joint", rows=None):
    settings = TrainSettings(
        role="student",
        rows=rows or RationaleRows(target_format=target_format, answer_weight=0.5),
        objective=VariantSettings(name="nll"),
        train=TrainOptions(),
        lora=None,
        max_new_tokens=8,
        seed=0,
    )
    return _build_rows(settings, artifact, [artifact], None, CONTEXT)


def test_student_learns_the_rationale_then_the_gold_answer(rationales):
    (row,) = build_rows(rationales, "joint")
    assert row.spans == (TargetSpan("Foxes fly.\n", 1.0), TargetSpan("Answer: (B) jay", 0.5))


def test_every_text_that_is_rewarded_has_the_same_weight(rationales):
    (row,) = build_rows(rationales, rows=QuestionRows())
    assert (row.id, row.mean_weight) == ("b", 1.0)
    assert "step by step" in row.prompt[-1].content


def test_multi_task_rows_are_a_rationale_and_an_answer(rationales):
    rationale, answer = build_rows(rationales, "multi_task")
    assert rationale.spans == (TargetSpan("Foxes fly."),)
    assert answer.spans == (TargetSpan("Answer: (B) jay", 0.5),)
    assert rationale.prompt != answer.prompt


def test_students_of_all_arms_get_the_same_number_of_updates(tiny):
    """An epoch is the size of the pool, whatever the number of rationales and of their chunks."""
    overrides = [
        "student.train={epochs: 1, batch_size: 16, n_evaluations: 1}",
        "student.target_format={name: chunks, splitter: even, n_chunks: 2}",
        "student.order=easy_first",
    ]
    bridgekd.run(tiny, methods=["bridge", "direct"], overrides=overrides)
    stats = [
        json.loads((folder / "manifest.json").read_text())["stats"]
        for folder in (tiny.parent / "runs").glob("train_student-*")
    ]
    assert sorted(f["n_rows"] for f in stats) == [24, 120]
    assert [f["n_updates"] for f in stats] == [4, 4]


def test_user_is_told_when_a_model_learns_longer_texts_than_it_may_write():
    def describe(n_tokens, target_format="joint"):
        settings = TrainSettings(
            role="student", rows=RationaleRows(target_format=target_format, answer_weight=1.0),
            objective=VariantSettings(name="nll"), train=TrainOptions(), lora=None,
            max_new_tokens=96, seed=0,
        )  # fmt: skip
        return describe_long_targets(settings, n_tokens)

    text = describe(200)
    assert text.startswith("The longest target of the student has 200 tokens, and student.max_new_")
    assert text.endswith("Set it to 320 or more, or remove the key.")
    assert describe(96) is None and describe(200, "multi_task") is None


def test_validation_split_is_disjoint_from_pool_and_test(tiny):
    bridgekd.run(tiny)
    store = tiny.parent / "runs"
    (loaded,), (tested,) = store.glob("load_pool-*"), store.glob("load_test-*")
    parts = [
        {e.question for e in read_rows(path, Example)}
        for path in (
            loaded / "pool.parquet",
            loaded / "validation.parquet",
            tested / "test.parquet",
        )
    ]
    assert [len(p) for p in parts] == [60, 10, 20]
    assert len(set().union(*parts)) == 90


def test_a_pool_keeps_its_labels_for_every_later_stage(tmp_path):
    labels = ["Open", "Open, with limits", "Closed", None]
    source = tmp_path / "train.jsonl"
    rows = [{"question": f"Is it {n}?", "answer": answer} for n, answer in enumerate(labels)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = LoadPoolSettings(
        columns=ColumnNames(), answer_type=VariantSettings(name="label"), unlabeled=True,
        validation_size=1, seed=0,
    )  # fmt: skip
    load_pool.function(tmp_path, settings, CONTEXT, Artifact("source", "s", source))
    answer_type = read_answer_type(Artifact("load_pool", "pool", tmp_path))
    assert answer_type.labels == ("Closed", "Open", "Open, with limits")
    assert not answer_type.is_correct("Open, with limits, as written", "Open")
