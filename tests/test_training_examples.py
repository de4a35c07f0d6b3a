"""Lessons: exported rows are the very texts of the training, in both forms."""

import pytest

from bridgekd.errors import InputError
from bridgekd.exports.sft_rows import build_sft_row
from bridgekd.io.artifact_store import Artifact
from bridgekd.io.row_files import write_rows
from bridgekd.records import Example, Rationale
from bridgekd.stages.training_examples import build_training_examples, build_training_sequence


@pytest.fixture
def made(tmp_path):
    """A pool of three questions, one without a gold answer, and rationales, one dropped."""
    pool = [Example("a", "A?", "yes", ("no", "yes")), Example("b", "B?"), Example("c", "C?", "3")]
    write_rows(tmp_path / "pool.parquet", Example, pool)
    rationales = [
        Rationale("a", "Since so.", "yes", "teacher", True),
        Rationale("b", "Thus.", "seven", "teacher", True),
        Rationale("c", "Hm.", "4", "teacher", False, "wrong answer: 4, not 3"),
    ]
    write_rows(tmp_path / "rationales.parquet", Rationale, rationales)
    return Artifact("load_pool", "1", tmp_path), [Artifact("check", "2", tmp_path)]


@pytest.mark.parametrize("form", ["joint", "multi_task"])
def test_a_row_s_completion_is_the_text_of_the_training(made, form):
    for lesson in build_training_examples(*made, form):
        row, trained = build_sft_row(lesson), build_training_sequence(lesson, 2.0)
        assert row["completion"][0]["content"] == "".join(s.text for s in trained.spans)
        assert row["prompt"][0]["content"] == trained.prompt[0].content


def test_reasoning_and_answer_are_apart_and_the_gold_answer_is_the_target(made):
    rows = [build_sft_row(k) for k in build_training_examples(*made, "joint")]
    assert [(r["id"], r["rationale"], r["answer"]) for r in rows] == [
        ("a", "Since so.", "(B) yes"),
        ("b", "Thus.", "seven"),
    ]


def test_two_tasks_are_two_rows_each_with_its_own_part(made):
    rows = [build_sft_row(k) for k in build_training_examples(*made, "multi_task")][:2]
    assert [(r["rationale"], r["answer"]) for r in rows] == [("Since so.", None), (None, "(B) yes")]
    assert [r["completion"][0]["content"] for r in rows] == ["Since so.", "Answer: (B) yes"]
    assert [
        build_training_sequence(k, 0.5).id for k in build_training_examples(*made, "multi_task")
    ][:2] == ["a:e", "a:p"]
    assert [
        s.weight
        for s in build_training_sequence(build_training_examples(*made, "joint")[0], 0.5).spans
    ] == [1.0, 0.5]


def test_nothing_kept_is_a_sentence(made, tmp_path):
    write_rows(tmp_path / "rationales.parquet", Rationale, [])
    with pytest.raises(InputError, match=r"no rationale of .* was kept; read its `reason` column"):
        build_training_examples(*made, "joint")
