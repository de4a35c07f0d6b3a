"""The contract of every method, and of one in a file of the user."""

import re
from pathlib import Path

import pytest

import bridgekd
from bridgekd import api
from bridgekd.errors import InputError
from bridgekd.exports.cards import render_model_card
from bridgekd.exports.folder import ExportedArm
from bridgekd.io.artifact_store import PlanStore
from bridgekd.io.load_recipe import load_recipe
from bridgekd.lm.merge import MergeResult
from bridgekd.methods import METHODS
from bridgekd.runs.metadata import load_finished_run
from bridgekd.runs.run import Run, build_run_context
from bridgekd.sandbox.export import export_world
from bridgekd.sandbox.step_checker import count_wrong_steps
from bridgekd.variants import VariantRef
from faulty_teacher import run_teacher_server

MINE = '''
"""The student's base model after the teacher's answers to a few questions."""

from pydantic import BaseModel, ConfigDict

from bridgekd.methods import Method
from bridgekd.runs.run import Arm


class Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    n_queries: int = 4


def build(run, options):
    pool = run.load_pool()
    ranking = run.select_questions(pool, strategy="random", queries=options.n_queries)
    answers = run.query_teacher(pool, ranking, queries=options.n_queries)
    student = run.train_student(pool, run.student, [run.check_rationales(pool, answers)])
    card = METHOD.card_sentence
    return [Arm("mine", "Student, mine", student, "student", is_result=True, card_sentence=card)]


METHOD = Method(
    name="mine", title="Mine", summary="A few answers.", paper="",
    card_sentence="Method: mine. The student learned from a few answers.",
    options=Options, build=build,
)
'''
QUICK = [
    *(f"{who}.updates=1" for who in ("student.train", "student.instruction_train")),
    *(f"assistant.{name}.updates=1" for name in ("train", "warm_up_train")),
    *(f"{who}.n_evaluations=1" for who in ("student.train", "assistant.train")),
    "assistant.warm_up_size=0", "evaluate.teacher_queries=0", "budget.queries=4",
    "assistant.max_new_tokens=80", "student.max_new_tokens=8", "confidence.threshold=0",
]  # fmt: skip
ALL = [*METHODS.list_names(), "mine.py"]
NAMES = [*METHODS.list_names(), "mine"]
DOCS = Path(__file__).parents[2] / "docs" / "methods.md"


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """(recipe, overrides, result, requests) of one run of all methods in a small world."""
    recipe = export_world(
        tmp_path_factory.mktemp("w") / "w", n_pool=12, n_validation=2, n_test=2, n_instructions=8
    )
    (recipe.parent / "mine.py").write_text(MINE)
    with run_teacher_server(wrong_rate=0.0) as teacher:
        sets = [*QUICK, f"teacher.base_url={teacher.base_url}"]
        checkers = {"sandbox": count_wrong_steps}
        result = bridgekd.run(recipe, overrides=sets, methods=ALL, checkers=checkers)
        yield recipe, sets, result, teacher


@pytest.fixture
def recipe(task):
    """A recipe that plans every method."""
    (task / "mine.py").write_text(MINE)
    (task / "instruct.jsonl").write_text('{"instruction": "Say a.", "response": "a"}\n')
    return task / "task.yaml"


def find(name, folder):
    ref = VariantRef(file="mine.py") if name == "mine.py" else VariantRef(name=name)
    return METHODS.load(METHODS.resolve(ref, folder))


def plan_arms(recipe, name, *overrides):
    """The arms of a method and the store in which they are planned."""
    sets = ["student.instruction_data=instruct.jsonl", *overrides]
    options, folder = load_recipe(recipe, sets), recipe.parent
    store = PlanStore(folder / "runs")
    method = find(name, folder)
    run = Run(options, folder, store, build_run_context(options, folder))
    return method.build(run, method.options()), store


@pytest.mark.parametrize("name", ALL)
def test_method_describes_itself(recipe, name):
    method = find(name, recipe.parent)
    assert method.title and method.card_sentence.startswith("Method: ")
    assert method.summary.endswith(".") and method.options.model_config["extra"] == "forbid"


@pytest.mark.parametrize("name", METHODS.list_names())
def test_method_is_in_the_documentation(name):
    assert f"| `{name}` |" in DOCS.read_text()


@pytest.mark.parametrize("name", ALL)
def test_method_plans(recipe, name):
    sets = ["student.instruction_data=instruct.jsonl"]
    plan = api.plan(recipe, methods=[name], overrides=sets)
    queries = sum(p.requests.limits.queries for p in plan.purchases)
    expected = {"base_models": 0, "answers_only": 0, "rule_rl": 0, "direct_full": 27, "mine.py": 4}
    assert queries == expected.get(name, 5)


@pytest.mark.parametrize("name", ALL)
def test_method_has_one_result_with_its_name_and_distinct_arms(recipe, name):
    arms, _ = plan_arms(recipe, name)
    results = [arm.name for arm in arms if arm.is_result]
    assert results == ([] if name == "base_models" else [name.removesuffix(".py")])
    assert len({arm.name for arm in arms}) == len(arms) and all(arm.title for arm in arms)


@pytest.mark.parametrize("name", [name for name in ALL if name != "base_models"])
def test_method_changes_with_the_seed(recipe, name):
    first, same, other = (plan_arms(recipe, name, f"seed={seed}")[0][-1] for seed in (0, 0, 1))
    assert first.model == same.model != other.model


@pytest.mark.parametrize("name", ALL)
def test_unknown_option_is_refused(recipe, name):
    key = "file" if name.endswith(".py") else "name"
    with pytest.raises(InputError, match=r"unknown option 'n_sampels'\. (Did you mean|Known: )"):
        api.plan(recipe, methods=[{key: name, "n_sampels": 3}])


def test_nearest_option_is_named(recipe):
    with pytest.raises(InputError, match="Did you mean 'n_samples'"):
        api.plan(recipe, overrides=["method={name: mentor_kd, n_sampels: 3}"])


def test_options_stand_beside_the_name(recipe):
    def plan(*overrides):
        return {a.path.name for a in api.plan(recipe, overrides=overrides).stages}

    default, other = plan("method=mentor_kd"), plan("method=mentor_kd", "method.kd_weight=0.5")
    changed = {name.partition("-")[0] for name in default ^ other}
    assert changed == {"train_student", "predict", "evaluate", "report"}


@pytest.mark.parametrize("name", [name for name in NAMES if name != "base_models"])
def test_result_is_measured(compared, name):
    row = compared[2].metrics.arms[name]
    assert row.is_trained and row.n_test == 2 and row.title.startswith("Student, ")


def test_second_run_sends_and_trains_nothing(compared):
    recipe, sets, result, teacher = compared
    n_requests, told = teacher.calls.total(), []
    again = bridgekd.run(
        recipe, overrides=sets, methods=ALL, checkers={"sandbox": count_wrong_steps},
        progress=lambda *work: told.append(work),
    )  # fmt: skip
    assert (again.metrics, teacher.calls.total(), told) == (result.metrics, n_requests, [])


def test_headline_and_card_of_a_method_that_no_list_knows(compared):
    recipe, sets, _, _ = compared
    own = [*sets, "method={file: mine.py}", "name=own"]
    report = bridgekd.run(recipe, overrides=own, checkers={"sandbox": count_wrong_steps}).report
    text = report.with_name("report.md").read_text()
    assert re.search(r"Student, mine answers [\d.]+ % of 2 test questions", text)
    assert "bridgekd run own.yaml" in report.read_text()
    run = load_finished_run(recipe.parent / "runs", "own")
    arm = run.get_arm(None)
    merged = MergeResult("float32", 1_000_000, ())
    card = render_model_card(ExportedArm(run, arm, (), merged, "bridgekd run own.yaml"))
    assert arm.name == "mine" and "Method: mine. The student learned from a few answers." in card


def test_two_methods_of_one_name_are_refused(recipe):
    other = MINE.replace("n_queries: int = 4", "n_queries: int = 3")
    (recipe.parent / "other.py").write_text(other)
    with pytest.raises(InputError, match="Two methods have an arm 'mine' with different models"):
        api.plan(recipe, methods=["mine.py", "other.py"])


def test_a_file_that_is_no_method_is_refused(recipe):
    (recipe.parent / "empty.py").write_text("METHOD = 3\n")
    with pytest.raises(InputError, match=r"A method file ends in METHOD = Method\(\.\.\.\)"):
        api.plan(recipe, methods=["empty.py"])
