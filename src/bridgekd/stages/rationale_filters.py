"""Signal 3 of TA-in-the-Loop: what the assistant's confidence lets into a training set.

The filter comes after the rule of `checked` (a cut or empty text is dropped whoever is confident of
it); what it drops keeps its confidence and says so. Where gold answers exist the confidence is held
against them, because a filter that is not calibrated is worse than none.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bridgekd.grading.answer_type import AnswerType
from bridgekd.prompts import ANSWER_PREFIX
from bridgekd.recipe import ConfidenceOptions, resolve_count
from bridgekd.records import Example, Rationale
from bridgekd.stages.model_backend import ModelBackend
from bridgekd.stages.run_context import RunContext
from bridgekd.stats.calibration import Calibration, compute_calibration, select_confident


def filter_by_confidence(
    rows: Sequence[Rationale],
    examples: Sequence[Example],
    model: ModelBackend,
    asked: ConfidenceOptions,
    *,
    batch_size: int | None,
    answer_type: AnswerType,
    live: RunContext,
) -> tuple[list[Rationale], Calibration | None]:
    """`rows` with the confidence of `model` in each, the unsure ones dropped."""
    judged = [i for i, r in enumerate(rows) if r.kept]
    said = model.estimate_confidence(
        [(examples[i], f"{rows[i].text}\n{ANSWER_PREFIX} {rows[i].answer}") for i in judged],
        measure=asked.measure,
        batch_size=batch_size,
        progress=live.progress,
        label="weigh rationales",
    )
    n_kept = (
        None if asked.keep_fraction is None else resolve_count(asked.keep_fraction, len(judged))
    )
    enough = select_confident(said, threshold=asked.threshold, n_kept=n_kept)
    why = f"at least {asked.threshold:g}" if n_kept is None else f"the first {asked.keep_fraction}"
    kept = list(rows)
    for i, confidence, ok in zip(judged, said, enough, strict=True):
        reason = "" if ok else f"unsure: confidence {confidence:.3f}, asked for {why}"
        kept[i] = replace(rows[i], kept=bool(ok), reason=reason, confidence=float(confidence))
    return kept, calibrate_against_gold(kept, examples, answer_type)


def filter_by_agreement(
    rows: Sequence[Rationale],
    examples: Sequence[Example],
    samples: Sequence[Sequence[str]],
    answer_type: AnswerType,
) -> tuple[list[Rationale], Calibration | None]:
    """`rows` with the share of `samples` (answers, k a row) that agree as confidence; dropped where
    no majority does (self-consistency, arXiv 2203.11171, as a filter: ours).
    """
    kept = []
    for row, answers in zip(rows, samples, strict=True):
        share = Counter(answers)[row.answer] / len(answers) if row.answer else 0.0
        reason = row.reason
        if row.kept and share <= 0.5:
            reason = f"inconsistent: {share:.0%} of {len(answers)} samples agree"
        kept.append(replace(row, kept=not reason, reason=reason, confidence=share))
    return kept, calibrate_against_gold(kept, examples, answer_type)


def calibrate_against_gold(
    rows: Sequence[Rationale], examples: Sequence[Example], answer_type: AnswerType
) -> Calibration | None:
    """The calibration over rows that have a confidence and a gold answer; None without any."""
    pairs = [
        (r.confidence, answer_type.is_correct(r.answer, e.answer, e.choices))
        for r, e in zip(rows, examples, strict=True)
        if r.confidence is not None and e.answer is not None
    ]
    if not pairs:
        return None
    confidence, correct = (np.array(column) for column in zip(*pairs, strict=True))
    return compute_calibration(confidence, correct)


def drop_duplicates(rows: Sequence[Rationale]) -> list[Rationale]:
    """Rationales of one question; of equal kept texts only the first stays kept."""
    earlier: set[str] = set()
    found = []
    for row in rows:
        again = row.kept and row.text in earlier
        found.append(replace(row, kept=False, reason="said before") if again else row)
        if row.kept:  # the same text with another answer is another rationale
            earlier.add(row.text)
    return found
