"""Which rationales are kept: the check of the teacher's answers, and filters by confidence.

Where gold answers exist, the confidence is compared with them: a filter that is not calibrated is
worse than no filter.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Literal

import numpy as np

from bridgekd.grading.answer_type import AnswerType
from bridgekd.grading.grade import check_rationale, join_reasoning
from bridgekd.io.artifact_store import Artifact, stage
from bridgekd.io.read_pool import index_by_id, read_answer_type, read_pool
from bridgekd.io.row_files import read_rows, write_rows
from bridgekd.prompts import ANSWER_PREFIX
from bridgekd.recipe import ConfidenceOptions, Recipe, resolve_count
from bridgekd.records import Completion, Example, Rationale
from bridgekd.stages.model_backend import BackendSettings, ModelBackend, open_backend
from bridgekd.stages.run_context import RunContext
from bridgekd.stages.stats import CalibrationStats, KeptStats
from bridgekd.stats.calibration import Calibration, compute_calibration, select_confident

CheckRule = Literal["correct", "confident", "all"]


class CheckSettings(BackendSettings):
    """`confidence` is None if the assistant scores no rationale."""

    filter: CheckRule
    confidence: ConfidenceOptions | None


class CheckStats(KeptStats, CalibrationStats):
    n_dropped: int


def build_check_settings(recipe: Recipe, rule: CheckRule | None = None) -> CheckSettings:
    """Return what a check depends on; `rule` replaces the recipe's check.filter."""
    rule = rule or recipe.check.filter
    if rule != "confident":
        return CheckSettings(filter=rule, confidence=None)
    scoring = recipe.assistant.scoring_backend
    return CheckSettings(filter=rule, confidence=recipe.confidence, scoring=scoring)


@stage(version=3, title="The teacher's rationales")
def check_rationales(
    output_dir: Path,
    settings: CheckSettings,
    ctx: RunContext,
    pool: Artifact,
    completions: Artifact,
    model: Artifact | None = None,
) -> CheckStats:
    """Write the teacher's answers as rationales, kept or dropped with a reason; of a question's
    equal texts the first is kept. With the filter `confident`, the assistant (`model`) scores them.
    """
    answers = read_rows(completions.path / "completions.parquet", Completion)
    answer_type = read_answer_type(pool)
    by_id = index_by_id(read_pool(pool), (c.id for c in answers))
    examples = [by_id[c.id] for c in answers]
    rows = [
        check_rationale(
            e,
            join_reasoning(c.text, c.reasoning),
            answer_type,
            "teacher",
            settings.filter,
            state=c.state,
        )
        for e, c in zip(examples, answers, strict=True)
    ]
    rows = [
        r for _, samples in groupby(rows, attrgetter("id")) for r in drop_duplicates([*samples])
    ]
    if settings.confidence is not None and model is not None:
        with open_backend(model, settings.scoring, output_dir, ctx) as backend:
            rows = filter_by_confidence(rows, examples, backend, settings.confidence, ctx)
    write_rows(output_dir / "rationales.parquet", Rationale, rows)
    n_kept = sum(r.kept for r in rows)
    calibration = calibrate_rationales(rows, examples, answer_type)
    return CheckStats(n_kept=n_kept, n_dropped=len(rows) - n_kept, calibration=calibration)


def filter_by_confidence(
    rows: Sequence[Rationale],
    examples: Sequence[Example],
    backend: ModelBackend,
    options: ConfidenceOptions,
    ctx: RunContext,
) -> list[Rationale]:
    """Return `rows` with the assistant's confidence in each kept one; drop those of low confidence.
    It is signal 3 of TA-in-the-Loop (arXiv 2406.05322).
    """
    kept = [i for i, row in enumerate(rows) if row.kept]
    confidences = backend.estimate_confidence(
        [(examples[i], f"{rows[i].text}\n{ANSWER_PREFIX} {rows[i].answer}") for i in kept],
        measure=options.measure,
        batch_size=ctx.runtime.assistant_batch_size,
        progress=ctx.progress,
        label="score rationales",
    )
    rule, n_kept = f"threshold {options.threshold:g}", None
    if options.keep_fraction is not None:
        rule = f"not in the first {options.keep_fraction}"
        n_kept = resolve_count(options.keep_fraction, len(kept))
    selected = select_confident(confidences, threshold=options.threshold, n_kept=n_kept)
    filtered = list(rows)
    for i, confidence, is_kept in zip(kept, confidences, selected, strict=True):
        reason = "" if is_kept else f"low confidence: {confidence:.3f}, {rule}"
        filtered[i] = replace(
            rows[i], kept=bool(is_kept), reason=reason, confidence=float(confidence)
        )
    return filtered


def filter_by_agreement(
    rows: Sequence[Rationale], samples: Sequence[Sequence[str]]
) -> list[Rationale]:
    """Return `rows`, with the fraction of sampled answers that agree as confidence. Drop those
    without a majority.

    samples: the answers of k samples per row. Self-consistency (arXiv 2203.11171) as a filter is
    our own use of it.
    """
    filtered = []
    for row, answers in zip(rows, samples, strict=True):
        fraction = Counter(answers)[row.answer] / len(answers) if row.answer else 0.0
        reason = row.reason
        if row.kept and fraction <= 0.5:
            reason = f"inconsistent: {fraction:.0%} of {len(answers)} samples agree"
        filtered.append(replace(row, kept=not reason, reason=reason, confidence=fraction))
    return filtered


def calibrate_rationales(
    rows: Sequence[Rationale], examples: Sequence[Example], answer_type: AnswerType
) -> Calibration | None:
    """Return the calibration over rows with a confidence and a gold answer; None without any."""
    confidences, answers = [r.confidence for r in rows], [r.answer for r in rows]
    return calibrate_confidence(confidences, answers, examples, answer_type)


def calibrate_confidence(
    confidences: Sequence[float | None],
    answers: Sequence[str],
    examples: Sequence[Example],
    answer_type: AnswerType,
) -> Calibration | None:
    """Return the calibration of the known confidences in n answers against the gold answers; None
    without any.
    """
    pairs = [
        (confidence, answer_type.matches_gold(answer, example))
        for confidence, answer, example in zip(confidences, answers, examples, strict=True)
        if confidence is not None and example.answer is not None
    ]
    if not pairs:
        return None
    confidence, correct = (np.array(column) for column in zip(*pairs, strict=True))
    return compute_calibration(confidence, correct)


def drop_duplicates(rows: Sequence[Rationale]) -> list[Rationale]:
    """Return one question's rationales; of kept ones with equal text, drop all but the first."""
    seen: set[str] = set()
    filtered = []
    for row in rows:
        is_duplicate = row.kept and row.text in seen
        filtered.append(replace(row, kept=False, reason="duplicate") if is_duplicate else row)
        if row.kept:  # the text of a dropped row may be right with another answer
            seen.add(row.text)
    return filtered
