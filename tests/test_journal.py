"""A finished run read back: where a model came from, and which arm is meant."""

from pathlib import Path

import pytest

from bridgekd.config import Recipe, Section
from bridgekd.edges.store import Artifact, Stats, Store, stage
from bridgekd.errors import BadInput
from bridgekd.exporting.cards import _find_base_model
from bridgekd.journal import Finished, Measured

HUB = Artifact("hub", "hub:owner/base@main", Path("owner/base@main"))
FILE = Artifact("file", "file:1", Path("train.jsonl"))


class Nothing(Section):
    pass


@stage(version=1)
def work(out, settings, live, pool=None, model=None, *rationales):
    return Stats()


@pytest.fixture
def make(tmp_path):
    store = Store(tmp_path)
    return lambda name, *inputs: store.make(work.named(name, name), Nothing(), None, *inputs)


def a_run(arms, recipe_method="bridge", methods=()):
    recipe = Recipe.model_validate(
        {
            "method": recipe_method,
            "data": {"train": "train.jsonl", "test": "test.jsonl"},
            "teacher": {"model": "large"},
            "budget": {"queries": 5},
            "assistant": {"model": "models/assistant"},
            "student": {"model": "models/student"},
        }
    )
    folder = Path("/home/me")
    return Finished("tiny", recipe, folder, tuple(methods), 1, (), FILE, {}, arms)


def an_arm(name, stage="train_student"):
    return Measured(name, Artifact(stage, "1", Path("x")), "explain", 8)


def test_a_model_s_first_source_is_found_through_every_training(make):
    pool = make("load_pool", FILE)
    instructed = make("instruct_student", None, HUB)
    first = make("train_student", pool, instructed, FILE)
    assert a_run({}).source(make("train_student", pool, first)).fingerprint == HUB.fingerprint
    base = _find_base_model(a_run({}), Measured("bridge", first, "explain", 8))
    assert (base.stage, base.path) == ("hub", Path("owner/base@main"))


def test_a_base_in_a_folder_is_where_the_recipe_says(make):
    pool, folder = make("load_pool", FILE), Artifact("model", "model:1", Path("anywhere"))
    student = make("train_student", pool, folder)
    assistant = make("train_assistant", pool, make("warm_up", pool, folder))
    bases = [
        _find_base_model(a_run({}), Measured("x", m, "explain", 8)).path
        for m in (student, assistant)
    ]
    assert bases == [Path("/home/me/models/student"), Path("/home/me/models/assistant")]


@pytest.mark.parametrize(
    ("method", "methods", "expected"),
    [
        ("bridge", ["bridge", "direct"], "bridge"),
        ("direct", ["bridge", "direct"], "direct"),
        ("bridge", ["direct"], "direct"),
        ("random", ["direct", "bridge"], "direct"),
    ],
)
def test_the_arm_that_is_not_named_is_the_student_of_the_run_s_method(method, methods, expected):
    names = ["assistant", *methods]
    arms = {n: an_arm(n, "train_assistant" if n == "assistant" else "train_student") for n in names}
    assert a_run(arms, method, methods).arm(None).name == expected


def test_an_arm_must_have_learnt_from_rationales():
    arms = {"student_base": an_arm("student_base", "model"), "direct": an_arm("direct")}
    with pytest.raises(BadInput, match="'student_base' of tiny learnt from no rationales"):
        a_run(arms).arm("student_base")
