"""Every stage with local work is counted, with the right rows, model and text."""

import pytest

from bridgekd.comparison import parse_comparison, run_comparison
from bridgekd.errors import InputError
from bridgekd.io.artifact_store import PlanStore
from bridgekd.io.load_recipe import load_recipe
from bridgekd.methods import METHODS, pilot
from bridgekd.plans.stage_work import PlannedData, WorkCounter
from bridgekd.runs.run import Run, build_run_context
from bridgekd.sandbox.world import generate_examples
from bridgekd.throughput import WorkKind
from conftest import TINY_RECIPE

LOCAL = (WorkKind.TRAINING, WorkKind.GENERATION, WorkKind.SCORING)
SETS = ["data.validation_size=10", "assistant.train.updates=null", "student.train.updates=null"]


def plan_stages(recipe, overrides=(), method="bridge"):
    """The planned stages of a method by name, and their counter."""
    given = load_recipe(recipe, [*SETS, *overrides])
    folder = recipe.parent
    run = Run(given, folder, PlanStore(folder / "runs"), build_run_context(given, folder))
    if method == "pilot":
        pilot.pilot(run)
    else:
        run_comparison(run, parse_comparison(given, folder, [method]))
    n_answers = dict.fromkeys(run.store.planned, 12)
    data = PlannedData(generate_examples(60, 0), 10, 20, [("Say yes.", "yes")] * 30, n_answers)
    return run.store.planned, WorkCounter(run.store.planned, data, run.assistant, 300)


def count(recipe, stage, overrides=(), method="bridge"):
    planned, counter = plan_stages(recipe, overrides, method)
    return [counter.count(todo) for todo in planned.values() if todo.stage.name == stage]


@pytest.fixture
def recipe(world_files, tmp_path):
    for name in ("train.jsonl", "test.jsonl", "instruct.jsonl", "model"):
        (tmp_path / name).symlink_to(world_files / name)
    (tmp_path / "tiny.yaml").write_text(TINY_RECIPE % "http://127.0.0.1:9/v1")
    return tmp_path / "tiny.yaml"


@pytest.mark.parametrize("method", [*METHODS.list_names(), "pilot"])
def test_every_stage_with_local_work_is_counted(recipe, method):
    planned, counter = plan_stages(recipe, method=method)
    for todo in planned.values():
        works = counter.count(todo)
        assert all(work.n_rows > 0 for work in works)
        if todo.stage.kind in LOCAL:
            assert works and works[0].kind is todo.stage.kind, todo.stage.name


def test_training_counts_updates_and_early_stopping(recipe):
    sets = ["student.train.epochs=2", "student.train.batch_size=8"]
    ((training, evaluations),) = count(recipe, "train_student", sets)
    assert (training.n_updates, training.n_rows, training.has_rationale) == (15, 120, True)
    assert (evaluations.kind, evaluations.n_rows) == (WorkKind.GENERATION, 2 * 10)
    ((training, *rest),) = count(recipe, "train_student", ["student.train.holdout_size=10%"])
    assert not rest


def test_assistant_is_trained_on_purchased_rationales(recipe):
    sets = ["assistant.train.epochs=4", "assistant.train.batch_size=8"]
    ((training, _),) = count(recipe, "train_assistant", sets)
    assert training.n_updates == 12 * 4 / 8


def test_samples_and_scored_rationales_are_counted(recipe):
    sets = ["annotate.filter=self_consistent", "annotate.n_samples=5"]
    ((writing,),) = count(recipe, "annotate", sets)
    assert (writing.n_rows, writing.has_rationale) == (60 * 6, True)
    ((_, judging),) = count(recipe, "annotate", ["annotate.filter=confident"])
    assert (judging.kind, judging.n_rows) == (WorkKind.SCORING, 60)
    ((judging,),) = count(recipe, "check_rationales", ["check.filter=confident"])
    assert (judging.kind, judging.n_rows) == (WorkKind.SCORING, 12)


def test_sampled_answers_of_students_are_counted(recipe):
    works = [work for part in count(recipe, "sample_answers", ["evaluate.n_samples=3"])
             for work in part]  # fmt: skip
    assert {(work.n_rows, work.has_rationale) for work in works} == {(20 * 3, True)}
    assert count(recipe, "sample_answers") == []


def test_memorized_rationales_are_read_by_the_student_and_its_base_model(recipe):
    sets = ["evaluate.n_memorized=8"]
    works = [work for part in count(recipe, "measure_memorization", sets) for work in part]
    assert {(work.kind, work.n_rows, work.has_rationale) for work in works} == {
        (WorkKind.SCORING, 2 * 8, True)
    }


def test_difficulty_by_sampled_answers_generates_them(recipe):
    ((_, answers),) = count(recipe, "score_pool", ["select.difficulty=n_distinct_answers"])
    assert (answers.kind, answers.has_rationale) == (WorkKind.GENERATION, False)
    assert answers.n_rows == 60 * 5


def test_difficulty_by_other_stages_is_counted_there(recipe):
    sets = ["select.difficulty={name: pass_rate, n_samples: 3}"]
    ((samples,),) = count(recipe, "sample_rationales", sets)
    assert (samples.n_rows, samples.has_rationale) == (60 * 3, True)
    ((scoring,),) = count(recipe, "score_pool", sets)
    assert (scoring.kind, scoring.n_rows) == (WorkKind.SCORING, 60)
    sets = ["select.difficulty=reducible_loss", "assistant.warm_up_size=10%"]
    one = {"updates": "null", "epochs": 1, "batch_size": 1}
    sets += [f"assistant.warm_up_train.{key}={value}" for key, value in one.items()]
    trainings = [works[0].n_rows for works in count(recipe, "train_half", sets)]
    assert sorted(trainings) == [6, 6, 30, 30]
    ((once, halves),) = count(recipe, "score_pool", sets)
    assert (once.n_rows, halves.n_rows) == (60, 2 * 60)


def test_reference_model_of_distillation_is_counted(recipe):
    works = [w for part in count(recipe, "train_student", method="mentor_kd") for w in part]
    assert [w.kind for w in works][:2] == [WorkKind.TRAINING, WorkKind.SCORING]
    assert works[0].n_rows == works[1].n_rows


def test_pilot_measures_its_held_out_questions(recipe):
    sets = ["pilot.n_eval=30", "data.validation_size=0"]
    works = [w for part in count(recipe, "predict", sets, "pilot") for w in part]
    assert {w.n_rows for w in works} == {60 // 4}
    trainings = [works[0] for works in count(recipe, "train_student", sets, "pilot")]
    assert [w.has_rationale for w in trainings].count(False) == 1


def test_works_of_a_server_are_not_timed(recipe):
    server = "{base_url: 'http://127.0.0.1:9/v1'}"
    sets = ["assistant.generation_backend=server", f"assistant.server={server}"]
    ((writing,),) = count(recipe, "annotate", sets)
    assert not writing.is_timed


def test_planned_texts_are_as_long_as_the_targets_will_be(recipe):
    """The longest rationale is expected to have 300 tokens; the model has 512 positions."""
    sets = ["assistant.max_new_tokens=auto", "student.max_new_tokens=auto"]
    limits = [part.max_new_tokens for (part,) in count(recipe, "predict", sets)]
    untrained, answers, rationales = 256, 64, 480
    assert sorted(limits) == [answers, *[untrained] * (len(limits) - 3), rationales, rationales]
    for stage, limit in (("warm_up", answers), ("train_student", rationales)):
        ((_, evaluations),) = count(recipe, stage, sets)
        assert evaluations.max_new_tokens == limit
    ((_, shorter),) = count(recipe, "train_student", [*sets, "student.train.max_length=100"])
    assert shorter.max_new_tokens == 160
    ((writing,),) = count(recipe, "annotate", ["assistant.max_new_tokens=40"])
    assert writing.max_new_tokens == 40


def test_the_initial_student_gives_its_log_probabilities_without_the_server(recipe):
    server = "{base_url: 'http://127.0.0.1:9/v1'}"
    sets = ["assistant.scoring_backend=server", f"assistant.server={server}"]
    method = {"name": "distill", "objective": "alm", "reference": "initial_student"}
    for options in (method, method | {"sft_fraction": 0.5}):
        planned, _ = plan_stages(recipe, sets, options)
        (scoring,) = (p.settings for p in planned.values() if p.stage.name == "score_targets")
        assert scoring.scoring == "transformers"


def test_an_objective_with_rewards_is_refused_in_the_plan_of_distill(recipe):
    with pytest.raises(
        InputError, match="group_reward needs rewards, which a training on rationales"
    ):
        plan_stages(recipe, method={"name": "distill", "objective": "group_reward"})


def test_a_training_by_rewards_holds_out_no_rows(recipe):
    planned, _ = plan_stages(recipe, ["student.train.holdout_size=10%"], "opd_then_rl")
    trainings = [p.settings for p in planned.values() if p.stage.name == "train_student"]
    assert [settings.train.holdout_size for settings in trainings] == ["10%", "10%", None]
