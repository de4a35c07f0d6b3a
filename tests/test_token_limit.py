"""`max_new_tokens: auto`: a model may write what it was trained on and half of it more."""

import shutil
from pathlib import Path

import pytest

import bridgekd
from answer_types import get_type
from bridgekd import api, lm
from bridgekd.errors import InputError
from bridgekd.io.artifact_store import Artifact
from bridgekd.io.load_recipe import load_recipe
from bridgekd.records import Example
from bridgekd.runs.metadata import load_finished_run
from bridgekd.stages.early_stopping import GreedyAccuracy
from bridgekd.stages.stats import TrainStats
from bridgekd.stages.token_limit import UNTRAINED_TOKENS, choose_token_limit, resolve_token_limit
from tiny_models import write_babbler

AUTO = [
    "assistant.max_new_tokens=auto",
    "student.max_new_tokens=auto",
    "evaluate.teacher_queries=0",
]


@pytest.fixture(scope="module")
def finished(world_files, tmp_path_factory):
    """A finished run with `auto`, what the user was told, and the plan of a second run."""
    from conftest import TINY_RECIPE
    from faulty_teacher import run_teacher_server

    folder, notes = tmp_path_factory.mktemp("auto") / "tiny", []
    shutil.copytree(world_files, folder)
    with run_teacher_server(wrong_rate=0.0) as teacher:
        (folder / "tiny.yaml").write_text(TINY_RECIPE % teacher.base_url)
        recipe = folder / "tiny.yaml"
        bridgekd.run(recipe, overrides=AUTO, note=notes.append)
        again = api.plan(recipe, overrides=AUTO)
    return load_finished_run(folder / "runs", "tiny"), notes, again


def test_every_model_is_measured_with_the_length_of_its_own_targets(finished):
    run, _, again = finished
    limits = {name: arm.max_new_tokens for name, arm in run.arms.items()}
    assert limits["student_base"] == limits["student_instructed"] == 256  # half of 512 positions
    assert limits["assistant_warm"] == 64
    for name in ("assistant", "bridge"):
        longest = run.arms[name].model.read_stats(TrainStats).max_target_tokens
        assert limits[name] == choose_token_limit("auto", longest) >= 1.5 * longest
    assert all(stage.done for stage in again.stages)


def test_warnings_name_the_number_that_was_used(finished):
    _, notes, _ = finished
    assert any("20 texts of the student reached 256 tokens before" in note for note in notes)
    assert not any("The longest target" in note for note in notes)


def test_export_and_questions_use_the_number_of_the_measurement(finished, tmp_path):
    run, _, _ = finished
    store = run.evaluation.path.parent
    limit = run.arms["bridge"].max_new_tokens
    bridgekd.export("tiny", tmp_path / "out", store=store)
    assert f'"max_new_tokens": {limit}' in (tmp_path / "out" / "generation_config.json").read_text()
    models = bridgekd.load_models("tiny", store=store).models
    assert [arm.max_new_tokens for arm, _ in models] == [
        limit, run.arms["assistant"].max_new_tokens, 256,
    ]  # fmt: skip


@pytest.mark.parametrize(("longest_target", "n_tokens"), [(10, 64), (43, 96), (100, 160)])
def test_early_stopping_measures_with_the_same_number(tmp_path, longest_target, n_tokens):
    endless = lm.load_model(write_babbler(tmp_path, "box"), device="cpu")
    example = Example("a", "Who?", "Ann")
    measure = GreedyAccuracy((example,), get_type("text"), "cot", "auto", 1)
    assert measure(endless, longest_target) == 0
    assert (measure.speed.n_generated_tokens, measure.speed.n_cut_off) == (n_tokens, 1)


def test_several_models_get_the_largest_number(tmp_path):
    long, short = Artifact("hub", "hub:a", Path("a/b@main")), Artifact("model", "m", tmp_path)
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 200}')
    assert resolve_token_limit("auto", short) == 100
    assert resolve_token_limit("auto", short, long) == UNTRAINED_TOKENS
    assert resolve_token_limit(40, short, long) == 40


@pytest.mark.parametrize("value", ["0", "true", "all", "12.5", "10000000", "null"])
def test_other_values_are_refused_with_their_line(task, value):
    message = r"task\.yaml.*: student.max_new_tokens: Give auto, or a number from 1 to 1,048,576"
    with pytest.raises(InputError, match=message):
        load_recipe(task / "task.yaml", [f"student.max_new_tokens={value}"])
