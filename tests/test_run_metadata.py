"""A finished run: the base of a model, and the default arm."""

from pathlib import Path

import pytest

from bridgekd.errors import InputError
from bridgekd.exports.cards import _find_base_model
from bridgekd.io.artifact_store import Artifact, Stats, Store, stage
from bridgekd.recipe import FrozenModel, Recipe
from bridgekd.runs.metadata import EvaluatedModel, FinishedRun, find_base_model, read_metadata
from bridgekd.runs.run import RunMetadata
from bridgekd.stages.arm_results import ArmSettings
from bridgekd.stages.predict import PredictSettings

HUB = Artifact("hub", "hub:owner/base@main", Path("owner/base@main"))
FILE = Artifact("file", "rows:1", Path("train.jsonl"))


class EmptySettings(FrozenModel):
    pass


@stage(version=1)
def work(out, settings, live, pool=None, model=None, *rationales):
    return Stats()


@pytest.fixture
def make(tmp_path):
    store = Store(tmp_path)
    return lambda name, *inputs: store.make(
        work.with_name(name, name), EmptySettings(), None, *inputs
    )


def a_run(arms, method="bridge"):
    recipe = Recipe.model_validate(
        {
            "method": method,
            "data": {"train": "train.jsonl", "test": "test.jsonl"},
            "teacher": {"model": "large"},
            "budget": {"queries": 5},
            "assistant": {"model": "models/assistant"},
            "student": {"model": "models/student"},
        }
    )
    metadata = RunMetadata(
        name="tiny", ledger="", folder="/home/me", recipe={}, methods=(recipe.method,)
    )
    return FinishedRun(metadata, recipe, FILE, {}, {arm.name: arm for arm in arms})


def an_arm(name, model, role="student", is_result=True):
    arm = ArmSettings(name=name.partition("@")[0], title=name, role=role, is_result=is_result)
    predicted = PredictSettings(role=role, prompt_mode="cot", max_new_tokens=8)
    return EvaluatedModel(name, arm, model, predicted, max_new_tokens=8)


@pytest.fixture
def trained(make):
    """A model that was trained on rationales."""
    return make("train_student", make("load_pool", FILE), HUB, FILE)


def test_base_model_is_found_through_every_training(make):
    pool = make("load_pool", FILE)
    first = make("train_student", pool, make("instruct_student", None, HUB), FILE)
    assert find_base_model(make("train_student", pool, first)).fingerprint == HUB.fingerprint
    base = _find_base_model(a_run([]), an_arm("bridge", first))
    assert (base.stage, base.path) == ("hub", Path("owner/base@main"))


def test_base_model_in_a_folder_has_the_path_of_the_recipe(make):
    pool, folder = make("load_pool", FILE), Artifact("model", "weights:1", Path("anywhere"))
    for role in ("student", "assistant"):
        model = make("train_student", pool, make("warm_up", pool, folder))
        base = _find_base_model(a_run([]), an_arm("x", model, role))
        assert base.path == Path(f"/home/me/models/{role}")


@pytest.mark.parametrize(
    ("method", "expected"),
    [("bridge", "bridge@10%"), ("direct", "direct"), ("bridge_random", "bridge@10%")],
)
def test_default_arm_is_the_result_of_the_method(trained, method, expected):
    names = ("direct", "bridge@5%", "bridge@10%")
    arms = [an_arm("assistant", trained, "assistant", is_result=False)]
    arms += [an_arm(name, trained) for name in names]
    assert a_run(arms, method).get_arm(None).name == expected


def test_arm_must_be_trained_on_rationales(trained):
    arms = [an_arm("student_base", HUB, is_result=False), an_arm("direct", trained)]
    with pytest.raises(
        InputError, match="Arm 'student_base' of run 'tiny' was not trained on rationales"
    ):
        a_run(arms).get_arm("student_base")


def test_file_of_another_version_is_refused(tmp_path):
    (tmp_path / "old.json").write_text('{"name": "old"}')
    with pytest.raises(InputError, match=r"old\.json is damaged or from another version"):
        read_metadata(tmp_path, "old")
