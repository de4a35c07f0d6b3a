"""What single stages decide: which rationales are kept, and what a student is taught from them."""

import json

import pytest

import bridgekd
from answer_types import get_type
from bridgekd.grading.grade import check_rationale
from bridgekd.io.artifact_store import Artifact
from bridgekd.io.row_files import read_rows, write_rows
from bridgekd.recipe import TrainOptions
from bridgekd.records import Example, Rationale, TargetSpan
from bridgekd.stages.train import RationaleRows, TrainSettings, _build_rows
from bridgekd.variants import VariantSettings

BIRD = Example("b", "Which flies?", "jay", ("fox", "jay"))


@pytest.mark.parametrize(
    ("text", "state", "keep", "reason"),
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
def test_a_rationale_is_kept_or_dropped_with_its_reason(text, state, keep, reason):
    row = check_rationale(BIRD, text, get_type("multiple_choice"), "teacher", keep, state=state)
    assert (row.kept, row.reason) == (not reason, reason)


@pytest.fixture
def lessons(tmp_path):
    """A pool of one question, and a rationale of the assistant that ends in the wrong answer."""
    rationale = Rationale("b", "Foxes fly.", "fox", "assistant", True)
    dropped = Rationale("b", "", "", "assistant", False, "no rationale")
    write_rows(tmp_path / "pool.parquet", Example, [BIRD])
    write_rows(tmp_path / "rationales.parquet", Rationale, [rationale, dropped])
    (tmp_path / "task.json").write_text(json.dumps({"answer_type": {"name": "multiple_choice"}}))
    return Artifact("both", "x", tmp_path)


def taught(lessons, form):
    settings = TrainSettings(
        role="student",
        rows=RationaleRows(target_format=form, answer_weight=0.5),
        objective=VariantSettings(name="nll"),
        train=TrainOptions(),
        lora=None,
        max_new_tokens=8,
        seed=0,
    )
    return _build_rows(settings, lessons, [lessons], None)


def test_a_student_learns_the_rationale_and_then_the_gold_answer(lessons):
    (row,) = taught(lessons, "joint")
    assert row.spans == (TargetSpan("Foxes fly.\n", 1.0), TargetSpan("Answer: (B) jay", 0.5))


def test_two_tasks_are_explaining_and_answering(lessons):
    explain, predict = taught(lessons, "multi_task")
    assert explain.spans == (TargetSpan("Foxes fly."),)
    assert predict.spans == (TargetSpan("Answer: (B) jay", 0.5),)
    assert explain.prompt != predict.prompt


def test_every_arm_s_student_gets_the_same_number_of_updates(tiny):
    """However many rationales it has: an epoch is the pool's size."""
    override = "student.train={epochs: 1, batch_size: 16, n_evaluations: 1}"
    bridgekd.run(tiny, methods=["bridge", "direct"], overrides=[override])
    facts = [
        json.loads((folder / "manifest.json").read_text())["stats"]
        for folder in (tiny.parent / "runs").glob("train_student-*")
    ]
    assert sorted(f["n_rows"] for f in facts) == [12, 60]
    assert [f["n_updates"] for f in facts] == [4, 4]


def test_the_validation_split_is_kept_apart_from_pool_and_test(tiny):
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
