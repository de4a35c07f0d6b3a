"""The cards of an exported arm: the facts of the run in Hugging Face's format; names stay text."""

from dataclasses import replace

import pytest
from huggingface_hub import DatasetCard, ModelCard

from bridgekd.exports.cards import ExportedArm, render_dataset_card, render_model_card
from bridgekd.exports.folder import _format_command, _read_training_examples
from bridgekd.lm.merge import MergeResult
from bridgekd.runs.metadata import load_finished_run
from bridgekd.variants import VariantRef

HOSTILE = "a|b\n# <script>`[x](y)*"


@pytest.fixture(scope="module")
def exported(runs):
    """The student of direct distillation, ready for its cards."""
    run = load_finished_run(runs, "tiny")
    arm = run.get_arm("direct")
    merged = MergeResult("float32", 1_000_000, ("A note.",))
    return ExportedArm(run, arm, _read_training_examples(arm.model), merged, _format_command(run))


def with_teacher(exported, name):
    recipe = exported.run.recipe
    teacher = recipe.teacher.model_copy(update={"model": name})
    return replace(
        exported,
        run=replace(exported.run, recipe=recipe.model_copy(update={"teacher": teacher})),
    )


def tables_of(text):
    return [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]


def test_model_card_has_accuracy_with_its_interval_as_evaluation_result(exported):
    card = ModelCard(render_model_card(exported))
    (result,) = card.data.eval_results
    low, high = result.metric_args["ci95"]
    assert low <= result.metric_value < high
    assert (result.dataset_name, result.metric_args["n_test"]) == ("test.jsonl", 20)
    assert f"| {100 * low:.1f} % to {100 * high:.1f} % | 20 |" in card.text
    assert card.data.library_name == "transformers" and card.data.base_model is None


def test_model_card_says_how_it_was_made_and_what_to_check(exported):
    text = render_model_card(exported)
    assert "    bridgekd compare tiny.yaml --arms bridge,direct\n" in text
    assert "The license of model is unknown." in text
    assert "**Terms of the teacher.**" in text and "\n- A note.\n" in text


def test_names_stay_in_their_cells_and_are_no_markup(exported):
    hostile = with_teacher(exported, HOSTILE)
    for text in (render_model_card(hostile), render_dataset_card(hostile)):
        assert "a\\|b # \\<script>" in text
        assert "<script>" not in text.replace("\\<script>", "")
        assert "\n# \\<" not in text


def test_braces_in_a_name_are_text(exported):
    assert "{x} {{ y }}" in render_model_card(with_teacher(exported, "{x} {{ y }}"))


def test_choices_are_in_the_code_if_the_task_has_them(exported):
    recipe = exported.run.recipe
    data = recipe.data.model_copy(update={"answer_type": VariantRef(name="multiple_choice")})
    run = replace(exported.run, recipe=recipe.model_copy(update={"data": data}))
    text = render_model_card(replace(exported, run=run))
    (line,) = (row for row in text.splitlines() if row.startswith("messages = "))
    scope = {"question": "Q?"}
    exec(line, scope)
    assert "Q?\n(A) first option\n(B)" in scope["messages"][0]["content"]
    assert "the question and its choices" in text


def test_dataset_card_names_its_file_and_counts_dropped_rationales(exported):
    card = DatasetCard(render_dataset_card(exported))
    assert card.data.configs[0]["data_files"][0]["path"] == "train.parquet"
    assert (
        "| wrong answer | " in card.text and "passed the filter of the run (`correct`)" in card.text
    )


def test_every_table_has_rows_as_wide_as_its_head(exported):
    for text in (render_model_card(exported), render_dataset_card(exported)):
        assert len(tables_of(text)) >= 3
        for head, *rows in tables_of(text):
            assert {row.replace("\\|", "").count("|") for row in rows} == {head.count("|")}
