"""Choosing and filtering in a whole run: measures without gold answers, confidence as a filter."""

import json
from pathlib import Path

import pytest

import bridgekd
from answer_types import get_type
from bridgekd import lm
from bridgekd.cost.budget_slice import slice_amount
from bridgekd.errors import InputError
from bridgekd.grading.grade import check_rationale
from bridgekd.io.row_files import read_rows
from bridgekd.recipe import ConfidenceOptions, RuntimeOptions, TeacherOptions
from bridgekd.records import Completion, Example, Rationale, Score
from bridgekd.stages.check_rationales import filter_by_confidence
from bridgekd.stages.model_backend import wrap_local_model
from bridgekd.stages.run_context import RunContext
from tiny_models import write_tiny

CONTEXT = RunContext(
    "run",
    TeacherOptions(model="none"),
    Path("none.db"),
    runtime=RuntimeOptions(assistant_batch_size=2),
)

UNLABELLED = ["data.unlabeled=true", "assistant.warm_up_size=0", "check.filter=all"]


def artifact(recipe, stage):
    (found,) = (recipe.parent / "runs").glob(f"{stage}-*")
    return found


def facts_of(folder):
    return json.loads((folder / "manifest.json").read_text())["stats"]


def facts(recipe, stage):
    return facts_of(artifact(recipe, stage))


@pytest.fixture
def unlabelled(tiny):
    """The same recipe over a train file without a single answer."""
    train = tiny.parent / "train.jsonl"
    rows = [json.loads(line) for line in train.read_text().splitlines()]
    train.write_text("".join(json.dumps({**row, "answer": None}) + "\n" for row in rows))
    return tiny


NO_GOLD = ["entropy", "margin", "{name: n_distinct_answers, n_samples: 2}", "disagreement"]


@pytest.mark.parametrize("measure", NO_GOLD)
def test_a_measure_that_needs_no_gold_answer_scores_the_pool(tiny, measure):
    bridgekd.run(tiny, overrides=[f"select.difficulty={measure}"])
    scores = read_rows(artifact(tiny, "score_pool") / "scores.parquet", Score)
    assert len(scores) == 60
    assert all(s.difficulty >= 0 for s in scores)
    assert len({s.difficulty for s in scores}) > 1 or measure not in ("entropy", "margin")


def test_a_pool_without_gold_answers_runs_to_the_end(unlabelled):
    sandbox = Path(bridgekd.__file__).with_name("sandbox") / "models"
    able = [f"assistant.model={sandbox / 'assistant-small'}", "assistant.max_new_tokens=120"]
    done = bridgekd.run(unlabelled, overrides=[*UNLABELLED, *able, "select.difficulty=entropy"])
    assert done.metrics.arms["bridge"].n_test == 20
    assert "assistant_warm" not in done.metrics.arms
    assert facts(unlabelled, "load_pool") == {"n_pool": 70, "n_validation": 0}


def test_a_text_without_an_answer_teaches_nothing_where_no_gold_answer_takes_its_place():
    said = "She leaves. Then nobody knows."
    for gold, kept in (("7", True), (None, False)):
        row = check_rationale(
            Example("a", "Who?", gold), said, get_type("number"), "teacher", "all"
        )
        assert (row.kept, row.reason) == (kept, "" if kept else "no answer")


def test_of_nothing_held_out_the_validation_split_judges(tiny):
    """As if held_out had been left out: the same judgements at the same updates."""
    judged = []
    for sets in ([], ["student.train.holdout_size=0"]):
        bridgekd.run(tiny, overrides=sets, methods=["direct"])
        (folder,) = journal(tiny, "train_student")
        judged.append([facts_of(folder)[name] for name in ("validations", "best_update")])
    assert judged[0] == judged[1]


def test_a_loss_without_gold_answers_is_refused_beforehand(unlabelled):
    with pytest.raises(InputError, match=r"measure loss needs gold answers.*entropy, margin"):
        bridgekd.plan(unlabelled, overrides=UNLABELLED)


def test_a_committee_without_a_warm_up_is_refused(tiny):
    with pytest.raises(InputError, match=r"assistant.warm_up_size is 0. Raise it"):
        bridgekd.plan(
            tiny, overrides=["select.difficulty=disagreement", "assistant.warm_up_size=0"]
        )


def test_a_missing_answer_is_still_a_mistake_unless_it_is_announced(unlabelled):
    with pytest.raises(InputError, match=r"line 1: no answer"):
        bridgekd.plan(unlabelled)


@pytest.mark.parametrize("how", ["p_true", "likelihood"])
def test_the_least_confident_rationales_are_dropped_and_confidence_is_held_against_gold(tiny, how):
    chosen = ["check.filter=confident", "confidence.keep_fraction=50%", f"confidence.measure={how}"]
    page = bridgekd.run(tiny, overrides=chosen).report.read_text()
    assert "Calibration of the confidence filter" in page
    rows = read_rows(artifact(tiny, "check_rationales") / "rationales.parquet", Rationale)
    judged = [r for r in rows if r.confidence is not None]
    kept = [r.confidence for r in judged if r.kept]
    dropped = [r for r in judged if not r.kept]
    assert len(kept) == -(-len(judged) // 2)
    assert all(
        r.reason.startswith("low confidence: ") and r.confidence <= min(kept) for r in dropped
    )
    assert facts(tiny, "check_rationales")["calibration"]["n"] == len(judged) == 12


def test_what_was_dropped_before_is_not_weighed(tmp_path):
    model = wrap_local_model(lm.load_model(write_tiny(tmp_path), device="cpu"))
    examples = [Example(id, "Who holds the box ?", "Ann") for id in "abc"]
    rows = [Rationale(id, "Bob gives it .", "ann", "assistant", True) for id in "ab"]
    rows.append(Rationale("c", "", "", "assistant", False, "no rationale"))
    found, calibration = filter_by_confidence(
        rows,
        examples,
        model,
        ConfidenceOptions(threshold=0),
        get_type("text"),
        CONTEXT,
    )
    assert [r.kept for r in found] == [True, True, False]
    assert (found[2], calibration.n) == (rows[2], 2)
    none, _ = filter_by_confidence(
        rows,
        examples,
        model,
        ConfidenceOptions(threshold=1),
        get_type("text"),
        CONTEXT,
    )
    assert not any(r.kept for r in none) and "threshold 1" in none[0].reason


def test_an_untrained_assistant_is_not_consistent_with_itself(tiny):
    with pytest.raises(InputError, match=r"No rationale of .* was kept"):
        bridgekd.run(tiny, overrides=["annotate.filter=self_consistent", "annotate.n_samples=2"])
    assert facts(tiny, "annotate")["n_kept"] == 0


def journal(recipe, stage):
    """The folders of a stage, in the order of the run."""
    stages = json.loads((recipe.parent / "runs" / "tiny.json").read_text())["stages"]
    return [recipe.parent / "runs" / row["folder"] for row in stages if row["stage"] == stage]


def asked(folder):
    return [c.id for c in read_rows(folder / "completions.parquet", Completion)]


def test_rounds_buy_the_budget_in_parts_and_nothing_twice(tiny, teacher):
    plan = bridgekd.plan(tiny, overrides=["select.n_rounds=3"])
    assert [p.forecast.n_queries for p in plan.purchases if p.stage == "query_teacher"] == [4, 4, 4]
    bridgekd.run(tiny, overrides=["select.n_rounds=3"])
    bought = [asked(folder) for folder in journal(tiny, "query_teacher")]
    assert [len(ids) for ids in bought] == [4, 4, 4]
    assert len({id for ids in bought for id in ids}) == 12
    rows = [facts_of(folder)["n_rows"] for folder in journal(tiny, "train_assistant")]
    assert rows == [4, 8, 12]
    assert teacher.calls.total() == 12 + 5


def test_parts_of_a_budget_add_up_to_the_whole():
    for amount in (1, 7, 200, 999_983):
        for n in (1, 2, 3, 7):
            parts = [slice_amount(amount, (k / n, (k + 1) / n)) for k in range(n)]
            assert sum(parts) == amount and max(parts) - min(parts) <= 1


@pytest.mark.parametrize("filtered", [True, False])
def test_ta_in_the_loop_asks_where_the_student_is_unsure(tiny, filtered):
    method = {"name": "ta_in_the_loop", "n_samples": 2, "filter_by_confidence": filtered}
    done = bridgekd.run(tiny, methods=[method], overrides=["confidence.keep_fraction=50%"])
    first, second = journal(tiny, "query_teacher")
    assert (len(asked(first)), len(asked(second))) == (4, 8)
    unsure = {s.id: s.difficulty for s in read_rows(
        journal(tiny, "score_student_uncertainty")[0] / "scores.parquet", Score)}  # fmt: skip
    rest = [d for id, d in unsure.items() if id not in {*asked(first), *asked(second)}]
    assert min(unsure[id] for id in asked(second)) >= max(rest)
    kept = [facts_of(folder)["n_kept"] for folder in journal(tiny, "check_rationales")]
    assert kept == ([2, 4] if filtered else [4, 8])
    row = done.metrics.arms["ta_in_the_loop"]
    assert row.n_queries == 12
    weighed = {k: [c.n for c in v] for k, v in row.by_seed[0].calibration.items()}
    assert weighed.pop("score_student_uncertainty") == [60]
    assert {k: sorted(v) for k, v in weighed.items()} == (
        {"check_rationales": [4, 8]} if filtered else {}
    )


def test_a_run_in_rounds_does_nothing_the_second_time(tiny, teacher):
    both = {
        "methods": ["bridge", {"name": "ta_in_the_loop", "filter_by_confidence": False}],
        "overrides": ["select.n_rounds=2"],
    }
    first = bridgekd.run(tiny, **both)
    calls, told = teacher.calls.total(), []
    again = bridgekd.run(tiny, **both, progress=lambda *what: told.append(what))
    assert (again.metrics, teacher.calls.total(), told) == (first.metrics, calls, [])
