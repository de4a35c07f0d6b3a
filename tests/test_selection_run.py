"""Selection and filters in a complete run: measures without gold answers, filter by confidence."""

import json
from pathlib import Path

import pytest

import bridgekd
from answer_types import get_type
from bridgekd import lm
from bridgekd.cost.budget_slice import slice_amount
from bridgekd.errors import InputError
from bridgekd.grading.grade import check_rationale
from bridgekd.io.load_recipe import load_recipe
from bridgekd.io.row_files import read_rows
from bridgekd.recipe import ConfidenceOptions, RuntimeOptions, TeacherOptions
from bridgekd.records import Completion, Example, Rationale, Score
from bridgekd.stages.check_rationales import calibrate_rationales, filter_by_confidence
from bridgekd.stages.model_backend import wrap_local_model
from bridgekd.stages.run_context import RunContext
from bridgekd.stages.select_questions import build_select_settings
from bridgekd.variants import VariantRef
from tiny_models import write_tiny

CONTEXT = RunContext(
    "run",
    TeacherOptions(model="none"),
    Path("none.db"),
    runtime=RuntimeOptions(assistant_batch_size=2),
)

UNLABELED = ["data.unlabeled=true", "assistant.warm_up_size=0", "check.filter=all"]


def artifact(recipe, stage):
    (folder,) = (recipe.parent / "runs").glob(f"{stage}-*")
    return folder


def read_stats_in(folder):
    return json.loads((folder / "manifest.json").read_text())["stats"]


def read_stats(recipe, stage):
    return read_stats_in(artifact(recipe, stage))


@pytest.fixture
def unlabeled(tiny):
    """The same recipe over a train file without a single answer."""
    train = tiny.parent / "train.jsonl"
    rows = [json.loads(line) for line in train.read_text().splitlines()]
    train.write_text("".join(json.dumps({**row, "answer": None}) + "\n" for row in rows))
    return tiny


NO_GOLD = ["entropy", "margin", "{name: n_distinct_answers, n_samples: 2}", "disagreement"]


@pytest.mark.parametrize("measure", NO_GOLD)
def test_measure_without_gold_answers_scores_the_pool(tiny, measure):
    bridgekd.run(tiny, overrides=[f"select.difficulty={measure}"])
    scores = read_rows(artifact(tiny, "score_pool") / "scores.parquet", Score)
    assert len(scores) == 60
    assert all(s.difficulty >= 0 for s in scores)
    assert len({s.difficulty for s in scores}) > 1 or measure not in ("entropy", "margin")


def test_pool_without_gold_answers_can_be_run(unlabeled):
    sandbox = Path(bridgekd.__file__).with_name("sandbox") / "models"
    able = [f"assistant.model={sandbox / 'assistant-small'}", "assistant.max_new_tokens=120"]
    done = bridgekd.run(unlabeled, overrides=[*UNLABELED, *able, "select.difficulty=entropy"])
    assert done.metrics.arms["bridge"].n_test == 20
    assert "assistant_warm" not in done.metrics.arms
    assert read_stats(unlabeled, "load_pool") == {"n_pool": 70, "n_validation": 0}


def test_rationale_without_an_answer_is_kept_only_with_a_gold_answer():
    text = "She leaves. No one knows more."
    for gold, kept in (("7", True), (None, False)):
        row = check_rationale(
            Example("a", "Who?", gold), text, get_type("number"), "teacher", "all"
        )
        assert (row.kept, row.reason) == (kept, "" if kept else "no answer")


def test_empty_holdout_leaves_the_validation_split(tiny):
    """The validations are the same as without holdout_size."""
    validations = []
    for sets in ([], ["student.train.holdout_size=0"]):
        bridgekd.run(tiny, overrides=sets, methods=["direct"])
        (folder,) = find_folders(tiny, "train_student")
        validations.append([read_stats_in(folder)[name] for name in ("validations", "best_update")])
    assert validations[0] == validations[1]


def test_loss_without_gold_answers_is_refused_before_the_run(unlabeled):
    with pytest.raises(InputError, match=r"measure loss needs gold answers.*entropy, margin"):
        bridgekd.plan(unlabeled, overrides=UNLABELED)


def test_committee_without_a_warm_up_is_refused(tiny):
    with pytest.raises(InputError, match=r"assistant.warm_up_size is 0. Raise it"):
        bridgekd.plan(
            tiny, overrides=["select.difficulty=disagreement", "assistant.warm_up_size=0"]
        )


def test_missing_answer_is_an_error_without_data_unlabeled(unlabeled):
    with pytest.raises(InputError, match=r"line 1: The answer is missing"):
        bridgekd.plan(unlabeled)


@pytest.mark.parametrize("measure", ["p_true", "likelihood"])
def test_least_confident_rationales_are_dropped(tiny, measure):
    overrides = [
        "check.filter=confident",
        "confidence.keep_fraction=50%",
        f"confidence.measure={measure}",
    ]
    page = bridgekd.run(tiny, overrides=overrides).report.read_text()
    assert "Calibration of the confidence filter" in page
    rows = read_rows(artifact(tiny, "check_rationales") / "rationales.parquet", Rationale)
    scored = [r for r in rows if r.confidence is not None]
    kept = [r.confidence for r in scored if r.kept]
    dropped = [r for r in scored if not r.kept]
    assert len(kept) == -(-len(scored) // 2)
    assert all(
        r.reason.startswith("low confidence: ") and r.confidence <= min(kept) for r in dropped
    )
    assert read_stats(tiny, "check_rationales")["calibration"]["n"] == len(scored) == 12


def test_dropped_rationales_are_not_scored(tmp_path):
    backend = wrap_local_model(lm.load_model(write_tiny(tmp_path), device="cpu"))
    examples = [Example(id, "Who holds the box ?", "Ann") for id in "abc"]
    rows = [Rationale(id, "Bob gives it .", "ann", "assistant", True) for id in "ab"]
    rows.append(Rationale("c", "", "", "assistant", False, "no rationale"))
    filtered = filter_by_confidence(
        rows, examples, backend, ConfidenceOptions(threshold=0), CONTEXT
    )
    assert [r.kept for r in filtered] == [True, True, False]
    assert filtered[2] == rows[2]
    assert calibrate_rationales(filtered, examples, get_type("text")).n == 2
    dropped = filter_by_confidence(rows, examples, backend, ConfidenceOptions(threshold=1), CONTEXT)
    assert not any(r.kept for r in dropped) and "threshold 1" in dropped[0].reason


def test_untrained_assistant_is_inconsistent(tiny):
    with pytest.raises(InputError, match=r"No rationale of .* was kept"):
        bridgekd.run(tiny, overrides=["annotate.filter=self_consistent", "annotate.n_samples=2"])
    assert read_stats(tiny, "annotate")["n_kept"] == 0


def find_folders(recipe, stage):
    """The folders of a stage, in the order of the run."""
    stages = json.loads((recipe.parent / "runs" / "tiny.json").read_text())["stages"]
    return [recipe.parent / "runs" / row["folder"] for row in stages if row["stage"] == stage]


def read_queried_ids(folder):
    return [c.id for c in read_rows(folder / "completions.parquet", Completion)]


def test_rounds_split_the_budget_and_repeat_no_question(tiny, teacher):
    plan = bridgekd.plan(tiny, overrides=["select.n_rounds=3"])
    assert [p.forecast.n_queries for p in plan.purchases if p.stage == "query_teacher"] == [4, 4, 4]
    bridgekd.run(tiny, overrides=["select.n_rounds=3"])
    queried = [read_queried_ids(folder) for folder in find_folders(tiny, "query_teacher")]
    assert [len(ids) for ids in queried] == [4, 4, 4]
    assert len({id for ids in queried for id in ids}) == 12
    rows = [read_stats_in(folder)["n_rows"] for folder in find_folders(tiny, "train_assistant")]
    assert rows == [4, 8, 12]
    assert teacher.calls.total() == 12 + 5


def test_slices_of_a_budget_add_up():
    for amount in (1, 7, 200, 999_983):
        for n in (1, 2, 3, 7):
            parts = [slice_amount(amount, (k / n, (k + 1) / n)) for k in range(n)]
            assert sum(parts) == amount and max(parts) - min(parts) <= 1


@pytest.mark.parametrize("filtered", [True, False])
def test_ta_in_the_loop_queries_where_the_student_is_uncertain(tiny, filtered):
    method = {"name": "ta_in_the_loop", "n_samples": 2, "filter_by_confidence": filtered}
    done = bridgekd.run(tiny, methods=[method], overrides=["confidence.keep_fraction=50%"])
    first, second = (set(read_queried_ids(f)) for f in find_folders(tiny, "query_teacher"))
    assert (len(first), len(second)) == (4, 8)
    (folder,) = find_folders(tiny, "score_student_uncertainty")
    uncertainty = {s.id: s.difficulty for s in read_rows(folder / "scores.parquet", Score)}
    rest = [uncertainty[id] for id in uncertainty.keys() - first - second]
    assert min(uncertainty[id] for id in second) >= max(rest)
    kept = [read_stats_in(folder)["n_kept"] for folder in find_folders(tiny, "check_rationales")]
    assert kept == ([2, 4] if filtered else [4, 8])
    row = done.metrics.arms["ta_in_the_loop"]
    assert row.n_queries == 12
    calibrated = {k: [c.n for c in v] for k, v in row.by_seed[0].calibration.items()}
    assert calibrated.pop("score_student_uncertainty") == [60]
    assert {k: sorted(v) for k, v in calibrated.items()} == (
        {"check_rationales": [4, 8]} if filtered else {}
    )


def test_second_run_in_rounds_does_nothing(tiny, teacher):
    both = {
        "methods": ["bridge", {"name": "ta_in_the_loop", "filter_by_confidence": False}],
        "overrides": ["select.n_rounds=2"],
    }
    first = bridgekd.run(tiny, **both)
    n_requests, reported = teacher.calls.total(), []
    again = bridgekd.run(tiny, **both, progress=lambda *what: reported.append(what))
    assert (again.metrics, teacher.calls.total(), reported) == (first.metrics, n_requests, [])


def test_quotas_are_those_of_the_recipes_own_strategy(tiny):
    recipe = load_recipe(tiny, ["select.quotas=domain", "select.strategy=random"])
    own = build_select_settings(recipe, tiny.parent)
    named = build_select_settings(recipe, tiny.parent, strategy=VariantRef(name="random"))
    assert own.quotas == "domain" == own.model_dump()["quotas"]
    assert named.quotas is None and "quotas" not in named.model_dump(mode="json")


def test_quotas_by_cluster_need_embeddings(tiny):
    sets = ["select.quotas=cluster", "select.strategy=hardest"]
    server = ["assistant.scoring_backend=server", "assistant.server={base_url: http://x/v1}"]
    with pytest.raises(InputError, match=r"select.quotas: cluster needs embeddings.*domain"):
        bridgekd.plan(tiny, overrides=[*sets, *server])


@pytest.mark.parametrize(("columns", "problem"), [("", "no question has one"),
                                                  ("domain: answer", None)])  # fmt: skip
def test_quotas_by_domain_need_domains(task, columns, problem):
    recipe = task / "task.yaml"
    recipe.write_text(
        recipe.read_text().replace("answer_type", f"columns: {{{columns}}}, answer_type")
        + "select:\n  quotas: domain\n"
    )
    if problem is None:
        assert bridgekd.plan(recipe).n_pool
        return
    message = rf"task\.yaml line 7: select.quotas: domain .* {problem}\. .*data.columns.domain"
    with pytest.raises(InputError, match=message):
        bridgekd.plan(recipe)
    assert bridgekd.plan(recipe, methods=["direct"]).n_pool  # it has a strategy of its own


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("assistant: {model: model}", "select: {difficulty: disagreement}\nassistant:\n"
         "  model: model\n  warm_up_size: 0", "7: The difficulty measure disagreement compares"),
        ("assistant: {model: model}", "assistant:\n  model: model\n"
         "  server: {base_url: 'http://127.0.0.1:1/v1'}\n  scoring_backend: server",
         "7: The strategy bridge_greedy needs embeddings"),
        ("train: train.jsonl", "train: no.jsonl", "1: data.train: There is no data file"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_named_with_its_line(task, old, new, message):
    recipe = task / "task.yaml"
    recipe.write_text(recipe.read_text().replace(old, new))
    with pytest.raises(InputError, match=rf"task\.yaml line {message}"):
        bridgekd.plan(recipe)
