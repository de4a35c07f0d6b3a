"""From models to figures: predict, evaluate, report."""

import json
from pathlib import Path
from typing import Any

from bridgekd import settings as of
from bridgekd.core.statistics import mcnemar, wilson
from bridgekd.core.throughput import Throughput
from bridgekd.edges.rows import read_rows, write_rows
from bridgekd.edges.store import Artifact, ancestors, stage
from bridgekd.records import Example, Prediction
from bridgekd.report.page import render
from bridgekd.stages.asking import asked, form_of
from bridgekd.stages.buying import graded
from bridgekd.stages.judging import PROMPTS
from bridgekd.stages.live import Live
from bridgekd.stages.pool import answer_kind
from bridgekd.stages.telling import tell
from bridgekd.stages.writing import written

_MEASURING = frozenset({"predict", "load_test"})  # not part of what a model cost to make


@stage(version=2)
def predict(
    out: Path, s: of.Predict, pool: Artifact, test: Artifact, model: Artifact, *, live: Live
) -> dict[str, Any]:
    """A model's greedy answers to the test questions, asked the way it was trained."""
    examples, kind = read_rows(test.path / "test.parquet", Example), answer_kind(pool)
    speed = Throughput()
    with asked(model, s.backend, out, live) as writer:
        texts = written(
            out,
            writer,
            [PROMPTS[s.ask](e) for e in examples],
            max_new_tokens=s.max_new_tokens,
            batch_size=s.batch_size,
            label="answer the test questions",
            live=live,
            throughput=speed,
        )
        facts = form_of(writer) | speed.facts()
    rows = [graded(e, text, kind) for e, text in zip(examples, texts, strict=True)]
    write_rows(out / "predictions.parquet", Prediction, rows)
    return {"n_test": len(rows), "n_correct": sum(r.correct for r in rows)} | facts


@stage(version=1)
def evaluate(
    out: Path, s: of.Evaluate, test: Artifact, *predictions: Artifact, live: Live
) -> dict[str, Any]:
    """metrics.json: every arm's accuracy with its interval, what it cost and took, and the arms in
    pairs.
    """
    domains = {e.id: e.domain for e in read_rows(test.path / "test.parquet", Example)}
    arms, answers = {}, {}
    for name, artifact in zip(s.arms, predictions, strict=True):
        rows = read_rows(artifact.path / "predictions.parquet", Prediction)
        answers[name] = {r.id: r.correct for r in rows}
        arms[name] = _accuracy_of(rows, domains) | _cost_of(artifact)
    metrics = {"arms": arms, "pairs": _pairs(answers)}
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1, sort_keys=True))
    return {"n_arms": len(arms)}


@stage(version=2)
def report(out: Path, s: of.Report, evaluation: Artifact, *, live: Live) -> dict[str, Any]:
    """The page a person reads, and the same as Markdown, told from the evaluation and what it came
    from.
    """
    story = tell(evaluation, s.recipe)
    page, markdown = render(story)
    (out / "report.html").write_text(page, encoding="utf-8")
    (out / "report.md").write_text(markdown, encoding="utf-8")
    return {"headline": story.headline}


def _accuracy_of(rows: list[Prediction], domains: dict[str, str]) -> dict[str, Any]:
    n_correct = sum(r.correct for r in rows)
    by_domain: dict[str, list[bool]] = {}
    for r in rows:
        by_domain.setdefault(domains[r.id], []).append(r.correct)
    return {
        "accuracy": n_correct / len(rows) if rows else 0.0,
        "n_correct": n_correct,
        "n_test": len(rows),
        "ci95": list(wilson(n_correct, len(rows))),
        "by_domain": {
            d: {"accuracy": sum(v) / len(v), "n_test": len(v), "ci95": list(wilson(sum(v), len(v)))}
            for d, v in sorted(by_domain.items())
        },
    }


def _cost_of(predictions: Artifact) -> dict[str, Any]:
    """What making this model took alone: paid calls, dollars, and the seconds of every stage behind
    it.
    """
    behind = list(ancestors(predictions).values())
    paid = [a.facts for a in behind if "spend_microusd" in a.facts]
    return {
        "n_queries": sum(f["n_queries"] for f in paid),
        "spend_usd": sum(f["spend_microusd"] for f in paid) / 1e6,
        "seconds": round(
            sum(a.manifest["seconds"] for a in behind if a.stage not in _MEASURING), 1
        ),
    }


def _pairs(answers: dict[str, dict[str, bool]]) -> dict[str, dict[str, float]]:
    """Difference and exact McNemar p-value of every two arms on the questions both answered."""
    pairs = {}
    names = list(answers)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            ids = sorted(answers[first].keys() & answers[second].keys())
            if not ids:
                continue
            a, b = [answers[first][k] for k in ids], [answers[second][k] for k in ids]
            pairs[f"{second} - {first}"] = {
                "n_test": len(ids),
                "difference": (sum(b) - sum(a)) / len(ids),
                "p_mcnemar": mcnemar(a, b),
            }
    return pairs
