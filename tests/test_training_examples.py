"""Training examples: exported rows are the rows of the training, in every target format."""

import pytest

from bridgekd.errors import InputError
from bridgekd.exports.sft_rows import build_sft_row
from bridgekd.io.artifact_store import Artifact
from bridgekd.io.row_files import write_rows
from bridgekd.records import Example, Rationale
from bridgekd.stages.training_examples import build_training_examples, build_training_sequence
from bridgekd.targets import TARGET_FORMATS
from bridgekd.variants import VariantRef


def resolve(name, **options):
    return TARGET_FORMATS.resolve(VariantRef.model_validate({"name": name, **options}))


@pytest.fixture
def artifacts(tmp_path):
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


@pytest.mark.parametrize("target_format", TARGET_FORMATS.list_names())
def test_completion_of_a_row_is_the_text_of_the_training(artifacts, target_format):
    for example in build_training_examples(*artifacts, resolve(target_format)):
        row, trained = build_sft_row(example), build_training_sequence(example, 2.0)
        assert row["completion"][0]["content"] == "".join(s.text for s in trained.spans)
        assert row["prompt"][0]["content"] == trained.prompt[0].content
        assert (row["loss_start"], row["loss_end"]) == (trained.loss_start, trained.loss_end)


def test_gold_answer_replaces_the_answer_of_the_rationale(artifacts):
    rows = [build_sft_row(k) for k in build_training_examples(*artifacts, resolve("joint"))]
    assert [(r["id"], r["rationale"], r["answer"]) for r in rows] == [
        ("a", "Since so.", "(B) yes"),
        ("b", "Thus.", "seven"),
    ]


def test_multi_task_example_is_two_rows(artifacts):
    rows = [build_sft_row(k) for k in build_training_examples(*artifacts, resolve("multi_task"))][
        :2
    ]
    assert [(r["rationale"], r["answer"]) for r in rows] == [("Since so.", None), (None, "(B) yes")]
    assert [r["completion"][0]["content"] for r in rows] == ["Since so.", "Answer: (B) yes"]


def test_answer_weight_applies_to_the_answer_only(artifacts):
    example, *_ = build_training_examples(*artifacts, resolve("joint"))
    assert [s.weight for s in build_training_sequence(example, 0.5).spans] == [1.0, 0.5]


def test_no_kept_rationale_is_an_error(artifacts, tmp_path):
    write_rows(tmp_path / "rationales.parquet", Rationale, [])
    with pytest.raises(InputError, match=r"No rationale of .* was kept\. Read its `reason` column"):
        build_training_examples(*artifacts, resolve("joint"))
