"""`plan --pilot` on a small world: it pays once, with consent, and measures unseen questions."""

import json
import shutil
from collections import Counter

import numpy as np
import pytest

import bridgekd
from bridgekd import api
from bridgekd.cli.main import main
from bridgekd.io.row_files import read_rows
from bridgekd.ledger.usage_history import read_reserved_microusd
from bridgekd.records import Completion, Example, Prediction, Rationale
from bridgekd.runs.metadata import read_metadata
from bridgekd.sandbox.world import generate_examples
from bridgekd.stages.pilot import PilotMeasurements
from bridgekd.stages.train import TrainSettings, choose_warm_up_examples
from bridgekd.stats.mixed_effects import estimate_difference
from conftest import TINY_RECIPE, write_jsonl
from faulty_teacher import run_teacher_server
from test_comparison_run import QUICK

N_QUERIES = 8  # of a budget of 16
SETS = [*QUICK, "budget.queries=16", "pilot.budget_fraction=0.5", "pilot.n_eval=30"]
SETS += ["evaluate.teacher_queries=0", "student.train.updates=null", "student.train.epochs=0.2"]


@pytest.fixture(scope="module")
def home(world_files, tmp_path_factory):
    """A folder with the sandbox's data: 130 pool questions, ten of them twice."""
    folder = tmp_path_factory.mktemp("pilot") / "tiny"
    shutil.copytree(world_files, folder)
    rows = [
        {k: getattr(e, k) for k in ("id", "question", "answer", "domain")}
        for e in generate_examples(140, 5)
    ]
    copies = [row | {"id": f"copy-{k}"} for k, row in enumerate(rows[:10])]
    write_jsonl(folder / "train.jsonl", rows[:-10] + copies)
    return folder


def write_recipe(home, folder, teacher):
    shutil.copytree(home, folder)
    (folder / "tiny.yaml").write_text(TINY_RECIPE % teacher.base_url)
    return folder / "tiny.yaml"


@pytest.fixture
def small(home, teacher, tmp_path):
    """A recipe that was not run yet."""
    return write_recipe(home, tmp_path / "tiny", teacher)


@pytest.fixture(scope="module")
def piloted(home, tmp_path_factory):
    """(recipe, teacher, result) of a finished pilot with two seeds."""
    with run_teacher_server(wrong_rate=0.0) as teacher:
        recipe = write_recipe(home, tmp_path_factory.mktemp("piloted") / "tiny", teacher)
        yield recipe, teacher, api.run_pilot(recipe, overrides=[*SETS, "pilot.n_seeds=2"])


def find_folders(recipe, stage):
    return sorted((recipe.parent / "runs").glob(f"{stage}-*[!l]"))


def test_pilot_pays_for_its_part_of_budget_and_measures_every_model(piloted):
    recipe, teacher, result = piloted
    measured = result.measurements
    assert teacher.calls.total() == measured.n_queries == measured.n_rationales == N_QUERIES
    assert (measured.n_pool, measured.n_eval) == (130, 30)
    models = [(m.role, m.n_rationales, m.n_seeds) for m in measured.models]
    assert models == [
        ("base", 0, 1),
        ("instructed", 0, 1),
        ("answers_only", 0, 1),
        *((role, n, 2) for n in (4, 8) for role in ("direct", "assistant", "via_assistant")),
    ]
    assert all(0 <= m.ci95[0] <= m.accuracy <= m.ci95[1] <= 1 for m in measured.models)
    assert read_reserved_microusd(recipe.parent / "ledger.db") > 0


def test_gain_is_paired_difference_over_seeds_and_questions(piloted):
    recipe, _, result = piloted
    (folder,) = find_folders(recipe, "evaluate_pilot")
    manifest = json.loads((folder / "manifest.json").read_text())
    correct = {"direct": [], "via_assistant": []}
    predictions = [i["folder"] for i in manifest["inputs"]["predictions"]]
    for model, name in zip(manifest["settings"]["models"], predictions, strict=True):
        rows = read_rows(recipe.parent / "runs" / name / "predictions.parquet", Prediction)
        if model["role"] in correct and model["fraction"] == 1:
            correct[model["role"]].append([row.correct for row in rows])
    expected = estimate_difference(np.array(correct["direct"]), np.array(correct["via_assistant"]))
    gain = result.measurements.gains[-1]
    assert (gain.n_rationales, gain.n_seeds) == (8, 2)
    assert (gain.difference, *gain.ci95) == (expected.mean, expected.low, expected.high)


def test_results_file_holds_what_python_returns(piloted):
    result = piloted[2]
    text = (result.folder / "pilot.json").read_text()
    assert PilotMeasurements.model_validate_json(text) == result.measurements


def test_cost_of_pilot_is_inside_planned_bounds(piloted):
    recipe, _, result = piloted
    (purchase,) = result.plan.purchases
    assert (purchase.requests.limits.queries, purchase.requests.is_selected) == (N_QUERIES, True)
    new = purchase.forecast.unpaid
    assert new.minimum <= read_reserved_microusd(recipe.parent / "ledger.db") <= new.maximum


def test_second_pilot_sends_and_trains_nothing(piloted):
    recipe, teacher, result = piloted
    sets = [*SETS, "pilot.n_seeds=2"]
    n_requests, reported, plans = teacher.calls.total(), [], []
    again = api.run_pilot(
        recipe, overrides=sets, progress=lambda *work: reported.append(work), show=plans.append
    )
    assert again.measurements == result.measurements
    assert (teacher.calls.total(), reported) == (n_requests, [])
    assert plans[0].purchases == () and all(a.done for a in plans[0].stages)


def test_no_model_saw_a_held_out_question(piloted):
    recipe = piloted[0]
    (folder,) = find_folders(recipe, "hold_out")
    held_out, rest = (
        {e.id for e in read_rows(folder / name, Example)}
        for name in ("test.parquet", "pool.parquet")
    )
    (purchase,) = find_folders(recipe, "query_teacher")
    queried = {c.id for c in read_rows(purchase / "completions.parquet", Completion)}
    assert len(held_out) == 30 and not held_out & (rest | queried)
    assert not find_folders(recipe, "load_test")
    for stage in ("annotate", "subsample"):
        for made in find_folders(recipe, stage):
            rationales = read_rows(made / "rationales.parquet", Rationale)
            assert not held_out & {r.id for r in rationales}


def test_held_out_questions_are_not_in_warm_up_or_validation(piloted):
    recipe = piloted[0]
    (folder,) = find_folders(recipe, "hold_out")
    held_out = {e.id for e in read_rows(folder / "test.parquet", Example)}
    (pool,) = find_folders(recipe, "load_pool")
    assert not held_out & {e.id for e in read_rows(pool / "validation.parquet", Example)}
    (warm,) = find_folders(recipe, "warm_up")
    settings = TrainSettings.model_validate(
        json.loads((warm / "manifest.json").read_text())["settings"]
    )
    warmed = {
        e.id for e in choose_warm_up_examples(read_rows(pool / "pool.parquet", Example), settings)
    }
    assert len(warmed) == 13 and not held_out & warmed


def test_held_out_questions_have_no_copy_in_pool_or_validation(piloted):
    (folder,) = find_folders(piloted[0], "hold_out")
    (pool,) = find_folders(piloted[0], "load_pool")
    questions = [e.question for e in read_rows(pool / "pool.parquet", Example)]
    questions += [e.question for e in read_rows(pool / "validation.parquet", Example)]
    copies = Counter(questions)
    assert max(copies.values()) == 2
    assert {copies[e.question] for e in read_rows(folder / "test.parquet", Example)} == {1}


def test_every_student_of_a_pilot_gets_the_updates_of_a_run(piloted):
    folders = find_folders(piloted[0], "train_student")
    updates = {json.loads((f / "manifest.json").read_text())["stats"]["n_updates"] for f in folders}
    assert len(folders) > 4 and len(updates) == 1


def test_direct_reuses_the_answers_of_the_pilot(piloted):
    recipe, teacher, _ = piloted
    copy = recipe.parent.with_name("copy")
    shutil.copytree(recipe.parent, copy)
    bridgekd.run(copy / "tiny.yaml", overrides=SETS, methods=["direct"])
    assert teacher.calls.total() == 16 and set(teacher.calls.values()) == {1}


def test_stopped_pilot_resumes_to_the_same_result(small, teacher):
    def stop(what, done, total):
        if what == "train assistant on rationales":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        api.run_pilot(small, overrides=SETS, progress=stop)
    store = small.parent / "runs"
    stopped = read_metadata(store, "tiny-pilot")
    assert stopped.state == "interrupted"
    assert api.plan_remaining(stopped, store).purchases == ()  # nothing is paid twice
    resumed = api.run_pilot(small, overrides=SETS)
    assert teacher.calls.total() == N_QUERIES
    shutil.rmtree(store)
    assert api.run_pilot(small, overrides=SETS).measurements == resumed.measurements
    assert json.loads((store / "tiny-pilot.json").read_text())["state"] == "done"


def test_without_consent_a_pilot_sends_nothing(small, teacher, capsys, monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", "key")
    sets = [f"--set={s}" for s in (*SETS, "teacher.api_key_env=TEACHER_KEY")]
    assert main(["plan", str(small), "--pilot", *sets]) == 2
    printed = " ".join("".join(capsys.readouterr()).split())
    assert f"up to {N_QUERIES} answers from 127.0.0.1" in printed and "bounds only" in printed
    assert "Nothing was sent or spent" in printed
    assert teacher.calls.total() == 0
    assert not (small.parent / "runs").exists() and not (small.parent / "ledger.db").exists()


def test_command_prints_accuracies_and_the_limits_of_a_pilot(piloted, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    sets = [f"--set={s}" for s in (*SETS, "pilot.n_seeds=2")]
    assert main(["plan", str(piloted[0]), "--pilot", "--yes", *sets]) == 0
    text = capsys.readouterr().out
    assert "The pilot is finished." in text
    assert "Student, via the assistant" in text and "95 % interval" in text
    assert "does not show the result at the full budget" in text
    assert main(["status", "tiny-pilot", "--store", str(piloted[0].parent / "runs")]) == 0


@pytest.mark.parametrize(
    ("sets", "complaint"),
    [
        (["pilot.budget_fraction=0.06"], "A pilot of 1 questions is too small"),
        (["data.validation_size=60"], "to measure a pilot on, fewer than 30"),
        (["pilot.budget_grid=[0.5, 0.25]"], "The last one must be 1"),
    ],
)
def test_useless_pilot_is_refused_before_it_is_paid(small, teacher, capsys, sets, complaint):
    more = [f"--set={s}" for s in (*SETS, *sets)]
    assert main(["plan", str(small), "--pilot", *more]) == 2
    assert complaint in " ".join(capsys.readouterr().err.split())
    assert teacher.calls.total() == 0


def test_pilot_without_kept_rationales_ends_with_the_reason(small, capsys):
    with run_teacher_server(lambda question, seed: "Answer: nothing") as mute:
        more = [f"--set={s}" for s in (*SETS, f"teacher.base_url={mute.base_url}")]
        assert main(["plan", str(small), "--pilot", *more]) == 2
    assert "0 rationales of the pilot were kept" in " ".join(capsys.readouterr().err.split())


def test_pilot_has_arms_of_its_own(small, capsys):
    assert main(["plan", str(small), "--pilot", "--arms", "direct"]) == 2
    assert "Leave out --arms" in capsys.readouterr().err


def test_pilot_options_rename_no_artifact_of_a_run(task):
    one, other = (
        api.plan(task / "task.yaml", overrides=[f"pilot.budget_fraction={x}"]) for x in (0.2, 0.4)
    )
    assert [a.path.name for a in one.stages] == [a.path.name for a in other.stages]
