"""Comparisons over seeds and budgets: shared artifacts are made once, and each arm is charged as if
it were alone.
"""

import json
import shutil

import pytest
import torch

import bridgekd
from bridgekd import api
from bridgekd.cli.main import main
from bridgekd.comparison import parse_budget, parse_comparison
from bridgekd.errors import InputError, TeacherUnavailableError
from bridgekd.io.load_recipe import load_recipe
from bridgekd.io.row_files import read_rows
from bridgekd.ledger.usage_history import read_reserved_microusd
from bridgekd.records import Completion
from bridgekd.runs.metadata import read_metadata
from bridgekd.sandbox.step_checker import count_wrong_steps
from conftest import TINY_RECIPE
from faulty_teacher import run_teacher_server
from test_pipeline import differing, rows_of

QUICK = [
    *(f"{who}.updates=2" for who in ("student.train", "student.instruction_train")),
    *(f"assistant.{how}.updates=2" for how in ("train", "warm_up_train")),
    *(f"{who}.n_evaluations=1" for who in ("student.train", "assistant.train")),
]
ARMS = ["bridge", "direct", "direct_full", "answers_only"]
OPTIONS = {"methods": ARMS, "seeds": 2, "budgets": ["10%", 0.2]}


def write_recipe(world_files, folder, teacher):
    shutil.copytree(world_files, folder)
    (folder / "tiny.yaml").write_text(TINY_RECIPE % teacher.base_url)
    return folder / "tiny.yaml"


@pytest.fixture(scope="module")
def compared(world_files, tmp_path_factory):
    """(recipe, plan, result, requests, the same command again and the requests after it)."""
    with run_teacher_server(wrong_rate=0.0) as teacher:
        recipe = write_recipe(world_files, tmp_path_factory.mktemp("compared") / "tiny", teacher)
        sets = {"overrides": [*QUICK, "evaluate.step_checker=sandbox"]}
        before = api.plan(recipe, **sets, **OPTIONS)
        checkers = {"checkers": {"sandbox": count_wrong_steps}}
        outcome = bridgekd.run(recipe, **sets, **checkers, **OPTIONS)
        n_requests, reported = teacher.calls.total(), []
        again = bridgekd.run(
            recipe, progress=lambda *w: reported.append(w), **sets, **checkers, **OPTIONS
        )
        assert reported == []
        yield recipe, before, outcome, n_requests, (again, teacher.calls.total())


def read_manifests(recipe, stage):
    folders = (recipe.parent / "runs").glob(f"{stage}-*/manifest.json")
    return [json.loads(path.read_text()) for path in folders]


def test_shared_artifacts_are_made_once_per_seed(compared):
    recipe = compared[0]
    counts = {
        s: len(read_manifests(recipe, s)) for s in ("warm_up", "score_pool", "instruct_student")
    }
    assert counts == {"warm_up": 2, "score_pool": 2, "instruct_student": 2}
    assert len(read_manifests(recipe, "train_student")) == 2 * 2 + 2 * 2 + 2 + 2
    assert len(read_manifests(recipe, "evaluate_teacher")) == 1


def test_every_arm_has_a_row_per_budget_and_a_model_per_seed(compared):
    arms = compared[2].metrics.arms
    assert {"bridge@10%", "bridge@20%", "direct@10%", "direct_full", "answers_only"} <= arms.keys()
    assert {name for name, row in arms.items() if row.n_seeds != 2} == {"teacher"}
    assert [s.seed for s in arms["bridge@20%"].by_seed] == [0, 1]
    assert arms["direct_full"].budget == "100%"
    assert (arms["student_base"].budget, arms["student_base"].n_queries) == ("", 0)


def test_arm_is_charged_as_if_alone_although_requests_are_shared(compared):
    recipe, _, outcome, calls, _ = compared
    arms = outcome.metrics.arms
    assert [arms[f"direct@{b}"].n_queries for b in ("10%", "20%")] == [6, 12]
    assert arms["direct_full"].n_queries == 60
    assert calls <= 70 + 5  # every question of the file once, and the evaluation
    for manifest in read_manifests(recipe, "query_teacher"):
        folder = recipe.parent / "runs" / f"query_teacher-{manifest['fingerprint']}"
        rows = read_rows(folder / "completions.parquet", Completion)
        assert manifest["stats"]["spend_microusd"] == sum(r.cost_microusd for r in rows)
    small, whole = (arms[name].spend_usd for name in ("direct@10%", "direct_full"))
    assert 0 < 5 * small < whole


def test_cost_of_a_comparison_is_inside_its_plan(compared):
    recipe, before, outcome, _, _ = compared
    paid = read_reserved_microusd(recipe.parent / "ledger.db")
    assert before.total_cost.unpaid.minimum <= paid <= before.total_cost.unpaid.maximum
    assert before.total_cost.unpaid.maximum < sum(
        p.forecast.unpaid.maximum for p in before.purchases
    )
    charged = sum(row.spend_usd for row in outcome.metrics.arms.values())
    assert charged * 1e6 > paid


def test_second_comparison_sends_and_trains_nothing(compared):
    _, _, outcome, calls, (again, after) = compared
    assert (again.metrics, after) == (outcome.metrics, calls)


def test_steps_of_rationales_are_checked_if_the_recipe_names_a_checker(compared):
    arms = compared[2].metrics.arms
    assert arms["direct_full"].training_set.wrong_steps.mean == 0  # the teacher is never wrong
    assert arms["bridge@20%"].training_set.wrong_steps.mean > 0.5  # texts of an untrained model
    assert arms["answers_only"].wrong_steps is None  # it writes no rationale


def test_one_metadata_file_describes_the_comparison(compared, capsys, monkeypatch):
    store = compared[0].parent / "runs"
    metadata = read_metadata(store, "tiny")
    assert (metadata.n_seeds, metadata.budgets) == (2, ("10%", "20%"))
    assert [str(method) for method in metadata.methods] == ARMS
    plan = api.plan_remaining(metadata, store)
    assert plan.purchases == () and all(a.done for a in plan.stages)
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["report", "tiny", "--store", str(store)]) == 0
    text = capsys.readouterr().out
    assert "Student, BRIDGE, 20%" in text and "Minus direct distillation" in text


def test_page_and_markdown_show_budgets_and_differences(compared):
    page = compared[2].report.read_text()
    assert (
        "bridgekd compare tiny.yaml --arms bridge,direct,direct_full,answers_only --seeds 2 "
        in page
    )
    assert "--budgets 10%,20%" in page
    assert "Selection: BRIDGE, greedy, 10%, seed 1" in page
    assert "<strong>Student, BRIDGE, 20%, seed 1</strong>" in page
    assert page.count("The first seed and budget are shown.") == 4
    markdown = compared[2].report.with_name("report.md").read_text()
    assert "| Student, BRIDGE, 10% | Student, direct, 10% |" in markdown


@pytest.fixture
def one_thread():
    """As in workers: another number of threads sums in another order."""
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)


def test_workers_make_the_artifacts_of_one_process(world_files, tmp_path, one_thread):
    options = {"methods": ["direct"], "seeds": 2, "overrides": [*QUICK, "budget.queries=5%"]}
    with run_teacher_server(wrong_rate=0.0) as teacher:
        one, two = (write_recipe(world_files, tmp_path / n, teacher) for n in ("one", "two"))
        single = bridgekd.run(one, **options)
        reported = []
        parallel = bridgekd.run(two, workers=2, progress=lambda *w: reported.append(w), **options)
    assert differing(rows_of(one.parent / "runs"), rows_of(two.parent / "runs")) == []
    assert single.metrics.arms.keys() == parallel.metrics.arms.keys()
    assert {what for what, _, _ in reported} == {"compare arms", "teacher"}  # no training


def test_error_in_a_worker_stops_the_comparison(world_files, tmp_path):
    with run_teacher_server(wrong_rate=0.0) as teacher:
        recipe = write_recipe(world_files, tmp_path / "tiny", teacher)
    unreachable = ["teacher.base_url=http://127.0.0.1:9/v1", "teacher.max_attempts=1"]
    with pytest.raises(TeacherUnavailableError, match="run the same command again"):
        bridgekd.run(recipe, methods=["direct"], seeds=2, workers=2, overrides=unreachable)
    assert json.loads((recipe.parent / "runs" / "tiny.json").read_text())["state"] == "stopped"


def test_dollar_limit_of_the_recipe_applies_to_every_budget(task):
    plan = api.plan(task / "task.yaml", methods=["direct", "direct_full"], budgets=[5, 0.5])
    assert {p.requests.limits.microusd for p in plan.purchases} == {1_000_000}
    assert sorted(p.requests.limits.queries for p in plan.purchases) == [5, 14, 27]


def test_bridge_no_instruct_needs_an_instruction_set(task):
    with pytest.raises(InputError, match="bridge_no_instruct needs student"):
        api.plan(task / "task.yaml", methods=["bridge_no_instruct"])


def test_unknown_checker_is_refused_before_the_purchase(task):
    with pytest.raises(InputError, match=r"names the checker 'mine'\. Known: none"):
        api.run(task / "task.yaml", overrides=["evaluate.step_checker=mine"])


@pytest.mark.parametrize(
    ("value", "expected"),
    [("5%", "5%"), ("0.05", "5%"), (0.05, "5%"), (".1", "10%"), ("1.0", "100%"), ("1", 1),
     (200, 200), ("0.001", "0.1%")],
)  # fmt: skip
def test_budget_is_a_fraction_or_a_number(value, expected):
    assert parse_budget(value) == expected


@pytest.mark.parametrize("value", ["x", "0", "0.0", "-1", "101%", "1.5"])
def test_invalid_budget_is_refused(value):
    with pytest.raises(InputError, match="budget"):
        parse_budget(value)


def test_seeds_count_up_and_budgets_keep_other_limits(task):
    recipe = load_recipe(task / "task.yaml", ["seed=3"])
    comparison = parse_comparison(recipe, task, ["direct"], 2, ["10%", 7])
    recipes = list(comparison.iter_recipes(recipe))
    assert [(r.seed, r.budget.queries, r.budget.usd) for r in recipes] == [
        (3, "10%", 1), (3, 7, 1), (4, "10%", 1), (4, 7, 1)
    ]  # fmt: skip
    assert list(parse_comparison(recipe, task).iter_recipes(recipe)) == [recipe]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"methods": ["bridg"]}, "Did you mean 'bridge'"),
        ({"n_seeds": 0}, "Use at least 1"),
        ({"budgets": ["5%", 0.05]}, "Duplicate budget"),
    ],
)
def test_invalid_comparison_is_refused(task, arguments, message):
    with pytest.raises(InputError, match=message):
        parse_comparison(load_recipe(task / "task.yaml"), task, **arguments)
