"""The stages of the pilot: hold_out, subsample, evaluate_pilot. They run locally and cost nothing.

The one idea: pool questions that no model of the pilot has seen are its test set. All models answer
the same questions, so two models are compared question by question. The results are measurements
only. The pilot's purchase is the start of the run's own `query_teacher`.
"""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Literal

import numpy as np

from bridgekd.errors import InputError
from bridgekd.io.artifact_store import Artifact, Stats, stage
from bridgekd.io.damage import translate_damage
from bridgekd.io.read_pool import TASK_FILE, read_pool, read_validation
from bridgekd.io.row_files import read_rows, write_rows
from bridgekd.recipe import FrozenModel
from bridgekd.records import Example, Pick, Prediction, Rationale
from bridgekd.stages.check_rationales import CheckStats
from bridgekd.stages.run_context import RunContext
from bridgekd.stages.stats import KeptStats
from bridgekd.stages.train import TrainSettings, choose_warm_up_examples
from bridgekd.stats.mixed_effects import estimate_difference, estimate_proportion

MAX_HOLD_OUT = 4  # at most a fourth of the pool is held out
MIN_QUESTIONS = 30  # fewer questions give an interval that is too wide to use
RESULTS = "pilot.json"

PilotRole = Literal["base", "instructed", "answers_only", "direct", "assistant", "via_assistant"]


class HoldOutSettings(FrozenModel):
    """`warm_up` names the questions that the assistant has seen; None: it has seen none."""

    n: int
    warm_up: TrainSettings | None
    min_fraction: float


class SubsampleSettings(FrozenModel):
    """The fraction of the kept rationales to take."""

    fraction: float


class PilotModelSettings(FrozenModel):
    """One model of the pilot. `fraction` is the part of the kept rationales that it depends on.
    Models that differ only in their seed are equal here.
    """

    role: PilotRole
    fraction: float = 0.0


class EvaluatePilotSettings(FrozenModel):
    """One model per prediction artifact, in their order."""

    models: tuple[PilotModelSettings, ...]


class PilotAccuracy(FrozenModel):
    """The accuracy of one model over `n_seeds` trainings, with its 95 % interval, in [0, 1].

    `n_rationales` is the number of the teacher's rationales that it depends on.
    """

    role: PilotRole
    n_rationales: int
    n_seeds: int
    accuracy: float
    ci95: tuple[float, float]


class PilotGain(FrozenModel):
    """Accuracy of the student taught via the assistant minus that of the student taught directly,
    paired by question and seed, with its 95 % interval and the p-value of no difference.
    """

    n_rationales: int
    n_seeds: int
    difference: float
    ci95: tuple[float, float]
    p: float


class PilotMeasurements(FrozenModel):
    """pilot.json. `gains` has one row per part of the purchase; the last one is the full pilot."""

    n_pool: int
    n_queries: int
    n_rationales: int
    n_eval: int
    models: tuple[PilotAccuracy, ...]
    gains: tuple[PilotGain, ...]


class HoldOutStats(Stats):
    n_pool: int
    n_held_out: int


class EvaluatePilotStats(Stats):
    n_models: int
    difference: float


@stage(version=1, title="Held-out questions of the pilot")
def hold_out(
    output_dir: Path, settings: HoldOutSettings, ctx: RunContext, pool: Artifact, ranking: Artifact
) -> HoldOutStats:
    """Write the pool without some questions, and these as the test set of the pilot.

    Held out are the last questions of the ranking that have a gold answer. None of them is queried,
    is part of the warm-up, or has a copy in the pool or in the validation split.
    """
    examples, validation = read_pool(pool), read_validation(pool)
    picks = read_rows(ranking.path / "ranking.parquet", Pick)
    seen = {p.id for p in picks if p.is_selected}
    if len(seen) * settings.min_fraction < 1:
        raise InputError(
            f"A pilot of {len(seen)} questions is too small: a fraction of "
            f"{settings.min_fraction:g} (pilot.budget_grid) is less than one question, so no model "
            "can be trained on it. Raise pilot.budget_fraction or the budget."
        )
    if settings.warm_up is not None:
        seen |= {e.id for e in choose_warm_up_examples(examples, settings.warm_up)}
    n_copies = Counter(e.question for e in [*examples, *validation])
    seen |= {e.id for e in examples if e.answer is None or n_copies[e.question] > 1}
    unseen = [p.id for p in sorted(picks, key=lambda p: -p.rank) if p.id not in seen]
    held_out = set(unseen[: min(settings.n, len(examples) // MAX_HOLD_OUT)])
    if len(held_out) < MIN_QUESTIONS:
        raise InputError(
            f"The pool of {len(examples)} leaves {len(held_out)} questions with gold answers to "
            f"measure a pilot on, fewer than {MIN_QUESTIONS}. Use more data, or run `bridgekd "
            "compare`."
        )
    rest = [e for e in examples if e.id not in held_out]
    write_rows(output_dir / "pool.parquet", Example, rest)
    write_rows(output_dir / "test.parquet", Example, [e for e in examples if e.id in held_out])
    write_rows(output_dir / "validation.parquet", Example, validation)
    (output_dir / TASK_FILE).write_bytes((pool.path / TASK_FILE).read_bytes())
    return HoldOutStats(n_pool=len(rest), n_held_out=len(held_out))


@stage(version=1, title="A part of the teacher's rationales")
def subsample(
    output_dir: Path, settings: SubsampleSettings, ctx: RunContext, rationales: Artifact
) -> KeptStats:
    """Write the first of the kept rationales. Raises InputError if the fraction is less than one
    rationale.
    """
    rows = [r for r in read_rows(rationales.path / "rationales.parquet", Rationale) if r.kept]
    if len(rows) * settings.fraction < 1:
        raise InputError(
            f"{len(rows)} rationales of the pilot were kept. A fraction of {settings.fraction:g} "
            "(pilot.budget_grid) is less than one rationale, so no model can be trained on it. "
            f"Read the `reason` column of {rationales.path}, then raise pilot.budget_fraction, fix "
            "the teacher's prompt or relax check.filter."
        )
    kept = rows[: resolve_fraction(settings.fraction, len(rows))]
    write_rows(output_dir / "rationales.parquet", Rationale, kept)
    return KeptStats(n_kept=len(kept))


@stage(version=1, title="Accuracies of the pilot")
def evaluate_pilot(
    output_dir: Path,
    settings: EvaluatePilotSettings,
    ctx: RunContext,
    held_out: Artifact,
    rationales: Artifact,
    *predictions: Artifact,
) -> EvaluatePilotStats:
    """Write pilot.json: the accuracy of every model of the pilot on the held-out questions."""
    check, sizes = rationales.read_stats(CheckStats), held_out.read_stats(HoldOutStats)
    correct: dict[PilotModelSettings, list[list[bool]]] = defaultdict(list)
    for model, artifact in zip(settings.models, predictions, strict=True):
        rows = read_rows(artifact.path / "predictions.parquet", Prediction)
        correct[model].append([row.correct for row in rows])
    by_model = {model: np.array(rows) for model, rows in correct.items()}
    fractions = [model.fraction for model in by_model if model.role == "via_assistant"]
    measurements = PilotMeasurements(
        n_pool=sizes.n_pool + sizes.n_held_out,
        n_queries=check.n_kept + check.n_dropped,
        n_rationales=check.n_kept,
        n_eval=sizes.n_held_out,
        models=tuple(_measure(model, rows, check.n_kept) for model, rows in by_model.items()),
        gains=tuple(_compare(by_model, fraction, check.n_kept) for fraction in fractions),
    )
    (output_dir / RESULTS).write_text(measurements.model_dump_json(indent=1))
    difference = measurements.gains[-1].difference
    return EvaluatePilotStats(n_models=len(predictions), difference=difference)


def read_measurements(pilot: Artifact) -> PilotMeasurements:
    """Return the results of evaluate_pilot."""
    with translate_damage(pilot.path / RESULTS):
        return PilotMeasurements.model_validate_json((pilot.path / RESULTS).read_bytes())


def resolve_fraction(fraction: float, n: int) -> int:
    """Return the integer nearest to a fraction of n, halves rounded up; at least 1 if n is above 0.

    >>> [resolve_fraction(f, 5) for f in (0.01, 0.5, 1.0)]
    [1, 3, 5]
    """
    return min(n, max(1, int(fraction * n + 0.5)))


def _measure(model: PilotModelSettings, correct: np.ndarray, n_kept: int) -> PilotAccuracy:
    estimate = estimate_proportion(correct)
    return PilotAccuracy(
        role=model.role,
        n_rationales=resolve_fraction(model.fraction, n_kept) if model.fraction else 0,
        n_seeds=len(correct),
        accuracy=estimate.mean,
        ci95=(estimate.low, estimate.high),
    )


def _compare(
    correct: dict[PilotModelSettings, np.ndarray], fraction: float, n_kept: int
) -> PilotGain:
    direct = correct[PilotModelSettings(role="direct", fraction=fraction)]
    via_assistant = correct[PilotModelSettings(role="via_assistant", fraction=fraction)]
    gain = estimate_difference(direct, via_assistant)
    return PilotGain(
        n_rationales=resolve_fraction(fraction, n_kept),
        n_seeds=len(direct),
        difference=gain.mean,
        ci95=(gain.low, gain.high),
        p=gain.p,
    )
