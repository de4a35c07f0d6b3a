"""Choosing and filtering in a whole run: measures without gold answers, confidence as a filter."""

import json
from pathlib import Path

import pytest

import bridgekd
from bridgekd import lm
from bridgekd.config import Confidence, Teacher
from bridgekd.edges.rows import read_rows
from bridgekd.errors import BadInput
from bridgekd.records import Example, Rationale, Score
from bridgekd.stages.filtering import by_confidence
from bridgekd.stages.live import Live
from tiny_models import write_tiny

LIVE = Live("run", Teacher(model="none"), Path("none.db"))

UNLABELLED = ["data.unlabelled=true", "assistant.warm_up=0", "check.keep=all"]


def artifact(recipe, stage):
    (found,) = (recipe.parent / "runs").glob(f"{stage}-*")
    return found


def facts(recipe, stage):
    return json.loads((artifact(recipe, stage) / "manifest.json").read_text())["facts"]


@pytest.fixture
def unlabelled(tiny):
    """The same recipe over a train file without a single answer."""
    train = tiny.parent / "train.jsonl"
    rows = [json.loads(line) for line in train.read_text().splitlines()]
    train.write_text("".join(json.dumps({**row, "answer": None}) + "\n" for row in rows))
    return tiny


@pytest.mark.parametrize("measure", ["entropy", "margin", "consistency", "disagreement"])
def test_a_measure_that_needs_no_gold_answer_scores_the_pool(tiny, measure):
    bridgekd.run(tiny, overrides=[f"select.difficulty={measure}", "select.samples=2"])
    scores = read_rows(artifact(tiny, "score_pool") / "scores.parquet", Score)
    assert len(scores) == 60
    assert all(s.difficulty >= 0 and s.n_answer_tokens == 0 for s in scores)


def test_a_pool_without_gold_answers_runs_to_the_end(unlabelled):
    done = bridgekd.run(unlabelled, overrides=[*UNLABELLED, "select.difficulty=entropy"])
    assert done.metrics["arms"]["bridge"]["n_test"] == 20
    assert "assistant_warm" not in done.metrics["arms"]
    assert facts(unlabelled, "load_pool") == {"n_pool": 70, "n_validation": 0}


def test_a_loss_without_gold_answers_is_refused_beforehand(unlabelled):
    with pytest.raises(BadInput, match=r"difficulty: loss needs gold answers"):
        bridgekd.plan(unlabelled, overrides=UNLABELLED)


def test_a_missing_answer_is_still_a_mistake_unless_it_is_announced(unlabelled):
    with pytest.raises(BadInput, match=r"line 1: no answer"):
        bridgekd.plan(unlabelled)


@pytest.mark.parametrize("how", ["p_true", "likelihood"])
def test_the_least_confident_rationales_are_dropped_and_confidence_is_held_against_gold(tiny, how):
    chosen = ["check.keep=confident", "confidence.keep_share=50%", f"confidence.how={how}"]
    bridgekd.run(tiny, overrides=chosen)
    rows = read_rows(artifact(tiny, "check") / "rationales.parquet", Rationale)
    judged = [r for r in rows if r.confidence is not None]
    kept = [r.confidence for r in judged if r.kept]
    dropped = [r for r in judged if not r.kept]
    assert len(kept) == -(-len(judged) // 2)
    assert all(r.reason.startswith("unsure: ") and r.confidence <= min(kept) for r in dropped)
    assert facts(tiny, "check")["calibration"]["n"] == len(judged) == 12


def test_what_was_dropped_before_is_not_weighed(tmp_path):
    local = lm.load(write_tiny(tmp_path), device="cpu")
    examples = [Example(id, "Who holds the box ?", "Ann") for id in "abc"]
    rows = [Rationale(id, "Bob gives it .", "ann", "assistant", True) for id in "ab"]
    rows.append(Rationale("c", "", "", "assistant", False, "no rationale"))
    found, facts = by_confidence(
        rows, examples, local, Confidence(at_least=0), batch_size=2, kind="text", live=LIVE
    )
    assert [r.kept for r in found] == [True, True, False]
    assert (found[2], facts["calibration"]["n"]) == (rows[2], 2)
    none, _ = by_confidence(
        rows, examples, local, Confidence(at_least=1), batch_size=2, kind="text", live=LIVE
    )
    assert not any(r.kept for r in none) and "asked for at least 1" in none[0].reason


def test_an_untrained_assistant_is_not_consistent_with_itself(tiny):
    with pytest.raises(BadInput, match=r"no rationale of .* was kept"):
        bridgekd.run(tiny, overrides=["annotate.keep=consistent", "annotate.samples=2"])
    assert facts(tiny, "annotate")["n_kept"] == 0
