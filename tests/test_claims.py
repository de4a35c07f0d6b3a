"""The reproduction's plan and its verdicts; carrying it out takes hours and has a make target."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from claims import plots
from claims.experiments import BUDGETS, CHOOSING, CLAIMS, EXPERIMENTS, STUDENTS
from claims.jobs import PHASES, SHIFTS, Job, repeat_for_seeds
from claims.results import Line
from claims.summary import NO, OPEN, YES, summarize_claims
from claims.tables import format_experiment
from generated_section import replace_section
from reproduce import find_mark

from bridgekd.comparison import build_arms, parse_comparison
from bridgekd.io.artifact_store import PlanStore
from bridgekd.io.load_recipe import load_recipe
from bridgekd.methods import METHODS
from bridgekd.runs.run import Run, build_run_context
from bridgekd.sandbox.export import export_world
from bridgekd.stats.metrics import ArmMetrics
from bridgekd.stats.mixed_effects import estimate_proportion

SEEDS, QUESTIONS = 5, 400


def line(title, accuracy, seed=0, n_seeds=SEEDS):
    """A line of the given accuracy; lines of one seed share how hard their questions are."""
    rng = np.random.default_rng(seed)
    luck = rng.random((n_seeds, QUESTIONS))
    right = {f"q{k:03d}": [bool(row[k] < accuracy) for row in luck] for k in range(QUESTIONS)}
    told = estimate_proportion(np.array(list(right.values()), dtype=float).T)
    figures = ArmMetrics.model_construct(
        accuracy=told.mean, ci95=(told.low, told.high), n_queries=200, spend_usd=0.16,
        wrong_steps=None, training_set=None,
    )  # fmt: skip
    return Line(title, figures, right, None, None, {})


def arms(**accuracies):
    return {name: line(name, accuracy) for name, accuracy in accuracies.items()}


EVEN = {"random": 0.5, "hardest": 0.5, "diverse": 0.5, "no_instruct": 0.5, "no_warm_up": 0.5}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_row_has_a_job_that_can_be_carried_out_and_a_reference_that_stands_above(
    name, tmp_path
):
    recipe = export_world(tmp_path, n_pool=20, n_validation=5, n_test=5, n_instructions=5)
    experiment = EXPERIMENTS[name]
    assert len({row.title for row in experiment.rows}) == len(experiment.rows)
    for row in experiment.rows:
        assert row.job.method in {*METHODS.list_names(), *PHASES, "teacher"}
        load_recipe(recipe, list(row.job.settings))
    held = [row for row in experiment.rows if row.title not in experiment.against]
    assert any(experiment.reference(row) for row in held)


@pytest.mark.parametrize("method", PHASES)
def test_every_phase_plans_the_answers_of_its_models(method, tmp_path):
    recipe = export_world(tmp_path, n_pool=20, n_validation=5, n_test=5, n_instructions=5)
    for domain in SHIFTS:
        (tmp_path / f"shifted-{domain}.jsonl").write_bytes((tmp_path / "train.jsonl").read_bytes())
    loaded = load_recipe(recipe)
    run = Run(loaded, tmp_path, PlanStore(tmp_path / "runs"), build_run_context(loaded, tmp_path))
    arms = PHASES[method](run)
    assert len(run.predict_all(arms)) == len(arms) > 0


@pytest.mark.parametrize("name", STUDENTS)
def test_every_student_of_an_experiment_is_planned_under_its_name(name, tmp_path):
    recipe = export_world(tmp_path, n_pool=20, n_validation=5, n_test=5, n_instructions=5)
    for row in EXPERIMENTS[name].rows:
        loaded = load_recipe(recipe, [*row.job.settings, "hard_limit_usd=5"])
        run = Run(loaded, tmp_path, PlanStore(tmp_path / "r"), build_run_context(loaded, tmp_path))
        methods = parse_comparison(loaded, tmp_path, [row.job.method]).methods
        assert row.model in {arm.name for arm in build_arms(run, methods)}


def test_the_claims_train_no_more_students_than_fit_five_hours():
    jobs = {
        job for name in CLAIMS for job in repeat_for_seeds(EXPERIMENTS[name].jobs, range(SEEDS))
    }
    n_students = sum(
        2 if job.method == "ta_in_the_loop" else 1
        for job in jobs
        if job.method in METHODS.list_names() and job.method != "base_models"
    )
    assert n_students <= 160
    assert not set(CLAIMS) & set(CHOOSING)


def test_the_teacher_is_measured_once_and_no_job_is_done_twice():
    jobs = repeat_for_seeds([Job("teacher"), Job("direct"), Job("direct")], range(SEEDS))
    assert [job.method for job in jobs] == ["teacher"] + ["direct"] * SEEDS
    assert {job.seed for job in jobs[1:]} == set(range(SEEDS))


def test_a_planted_gain_is_described_with_its_size_and_holds():
    told = summarize_claims(
        {"methods": arms(bridge=0.6, direct=0.4, direct_full=0.6, teacher=0.9, **EVEN)}
    )
    relative, gap, full, *ablations = told
    for claim, truth in ((relative, 50), (gap, 40)):
        _, low, high = (float(n) for n in re.findall(r"[+-][\d.]+", claim.here))
        assert low < truth < high and high - low < 30 and claim.holds == YES
    assert full.holds == OPEN and full.here.startswith("+0.0")
    assert {c.holds for c in ablations} == {YES}


def test_a_planted_loss_is_described_as_one():
    told = summarize_claims(
        {"methods": arms(bridge=0.3, direct=0.4, direct_full=0.6, teacher=0.9, **EVEN)}
    )
    assert {c.holds for c in told} == {NO}


@pytest.mark.parametrize(
    ("other", "accuracy", "said", "holds"),
    [
        ("10%", 0.6, "up to 1x direct is shown below, above with none", OPEN),
        ("10%", 0.8, "up to 1x direct is shown below, above with 2x", NO),
        ("100%", 0.6, "up to 4x direct is shown below, above with none", OPEN),
        ("100%", 0.8, "up to 4x direct is shown below, above with 20x", OPEN),
        ("100%", 0.3, "up to 20x direct is shown below, above with none", YES),
    ],
)
def test_the_queries_saved_are_read_off_where_direct_is_shown_below(other, accuracy, said, holds):
    shares = ("0.1%", "1%", "5%", "10%", "20%")
    reached = {share: accuracy if share == other else 0.3 for share in (*shares, "100%")}
    scaling = {f"direct {s}": line(f"direct {s}", reached[s]) for s in shares}
    scaling["bridge 5%"] = line("bridge 5%", 0.6)
    methods = arms(bridge=0.6, direct=0.3, direct_full=reached["100%"], teacher=0.9, **EVEN)
    (claim,) = [
        c for c in summarize_claims({"methods": methods, "scaling": scaling}) if "saved" in c.claim
    ]
    assert said in claim.here and claim.holds == holds


def test_a_table_leaves_out_columns_that_nothing_fills():
    text = format_experiment(EXPERIMENTS["filters"], {"all": line("all", 0.5)})
    assert "| all | 5" in text and "wrong steps" not in text and "picks" not in text


def test_a_part_of_a_section_is_not_written_over_the_whole():
    assert find_mark(CLAIMS, 0) == "claims" and find_mark(CHOOSING, 0) == "choosing"
    assert find_mark(["later_seeds"], 5) == "later_seeds"
    for names, first in ((["later_seeds"], 0), (CLAIMS, 5)):
        with pytest.raises(SystemExit, match="first-seed"):
            find_mark(names, first)
    for names in (["shift"], [*CLAIMS, "loop"], ["loop"]):
        with pytest.raises(SystemExit, match="name all experiments"):
            find_mark(names, 0)


def test_the_pictures_hold_every_arm_and_are_the_same_bytes_again(tmp_path):
    methods = arms(bridge=0.6, direct=0.4)
    scaled = {f"{m} {s}": line(m, 0.5) for m in ("bridge", "direct") for s in BUDGETS}
    for name in ("one", "other"):
        plots.plot_arms(methods, tmp_path / name / "arms.svg")
        plots.plot_scaling(scaled, tmp_path / name / "scaling.svg")
    for picture in ("arms.svg", "scaling.svg"):
        draw_plots = (tmp_path / "one" / picture).read_bytes()
        assert draw_plots == (tmp_path / "other" / picture).read_bytes()
        assert b"<svg" in draw_plots and len(draw_plots) > 5000


def test_a_table_goes_between_its_marks_and_nowhere_else(tmp_path):
    document = tmp_path / "page.md"
    document.write_text("before\n<!-- t: generated -->\nold\n<!-- t: end -->\nafter\n")
    replace_section(document, "t", "new\n")
    assert document.read_text() == "before\n<!-- t: generated -->\nnew\n<!-- t: end -->\nafter\n"
    with pytest.raises(SystemExit, match="lacks the comments"):
        replace_section(document, "other", "new")
