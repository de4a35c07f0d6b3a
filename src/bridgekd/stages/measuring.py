"""From models to figures: predict, evaluate."""

from collections.abc import Mapping
from pathlib import Path

from bridgekd import settings as of
from bridgekd.core.chance import chance
from bridgekd.core.durations import WorkKind
from bridgekd.core.throughput import Throughput
from bridgekd.edges.metrics_file import write_metrics
from bridgekd.edges.rows import read_rows, write_rows
from bridgekd.edges.store import Artifact, Stats, stage
from bridgekd.errors import BadInput
from bridgekd.records import Example, Prediction
from bridgekd.stages.asking import asked, form_of
from bridgekd.stages.buying import graded
from bridgekd.stages.cells import Reader
from bridgekd.stages.judging import PROMPTS
from bridgekd.stages.live import Checker, Live
from bridgekd.stages.pool import answer_kind
from bridgekd.stages.stats import GenerationStats
from bridgekd.stages.stepping import steps_of
from bridgekd.stages.writing import written
from bridgekd.stats.compute_metrics import compute_metrics


class PredictStats(GenerationStats):
    n_test: int
    n_correct: int


class EvaluateStats(Stats):
    n_arms: int
    n_models: int


@stage(version=2, kind=WorkKind.GENERATION, title="Answers to the test questions")
def predict(
    out: Path, s: of.Predict, live: Live, pool: Artifact, test: Artifact, model: Artifact
) -> PredictStats:
    """A model's greedy answers to the test questions, asked the way it was trained."""
    examples, kind = read_rows(test.path / "test.parquet", Example), answer_kind(pool)
    speed = Throughput()
    with asked(model, s.backend, out, live) as writer:
        texts = written(
            out,
            writer,
            [PROMPTS[s.ask](e) for e in examples],
            max_new_tokens=s.max_new_tokens,
            batch_size=live.runtime.get_batch_size(s.role),
            label=f"answer the {'test questions' if test.stage == 'load_test' else 'pilot'}",
            live=live,
            throughput=speed,
        )
        form = form_of(writer)
    rows = [graded(e, text, kind) for e, text in zip(examples, texts, strict=True)]
    write_rows(out / "predictions.parquet", Prediction, rows)
    return PredictStats(
        n_test=len(rows),
        n_correct=sum(r.correct for r in rows),
        generation=speed.to_stats(),
        asked_with=form,
    )


@stage(version=5, title="Evaluation")
def evaluate(
    out: Path, s: of.Evaluate, live: Live, test: Artifact, *predictions: Artifact
) -> EvaluateStats:
    """metrics.json: every arm at every budget over all seeds, what it cost and gained, and the arms
    in pairs.
    """
    examples = read_rows(test.path / "test.parquet", Example)
    check = None if s.steps is None else checker(live.checkers, s.steps)
    read = Reader({e.id: e for e in examples}, check)
    results = [read.cell(name, a) for name, a in zip(s.arms, predictions, strict=True)]
    first = dict(reversed(list(zip(s.arms, predictions, strict=True))))  # of several seeds
    step_source, steps = steps_of(examples, check, first)
    metrics = compute_metrics(
        results,
        {e.id: e.domain for e in examples},
        chance=chance([e.answer or "" for e in examples], [e.choices for e in examples]),
        steps=steps,
        step_source=step_source,
    )
    write_metrics(out, metrics)
    return EvaluateStats(n_arms=len(metrics.arms), n_models=len(results))


def checker(known: Mapping[str, Checker], name: str) -> Checker:
    """The step checker of this name, of those that were brought along."""
    if name not in known:
        there = ", ".join(known) or "none"
        raise BadInput(
            f"evaluate.steps names the checker {name!r}; known here: {there}; leave the key "
            "out, or from Python give run(..., checkers={name: function})"
        )
    return known[name]
