"""What a model learns from rationales: the kept ones, each as a prompt and the text behind it.

The trainings and an export both come here, so that exported rows are those that were trained on.
"""

from collections.abc import Sequence
from typing import Literal

from bridgekd.errors import InputError
from bridgekd.io.artifact_store import Artifact
from bridgekd.io.read_pool import index_by_id, read_pool
from bridgekd.io.row_files import read_rows
from bridgekd.prompts import (
    build_answer_target,
    build_cot_target,
    format_answer,
    render_answer_prompt,
    render_cot_prompt,
)
from bridgekd.records import Example, Rationale, TargetSpan, TrainingExample, TrainingSequence

TargetFormat = Literal["joint", "multi_task"]


def build_training_examples(
    pool: Artifact, rationales: Sequence[Artifact], form: TargetFormat
) -> list[TrainingExample]:
    """Kept rationales as lessons, in order; the answer is the gold one where there is one.

    joint: one lesson a rationale, multi_task: two, to explain and to answer. Raises InputError
    where nothing was kept.
    """
    kept = [r for r in read_rationales(rationales) if r.kept]
    if not kept:
        raise InputError(
            f"no rationale of {rationales[-1].path} was kept; read its `reason` column, then raise "
            "the budget, mend the teacher's prompt or loosen check.filter or annotate.filter"
        )
    examples = index_by_id(read_pool(pool), (r.id for r in kept))
    return [lesson for r in kept for lesson in _build_examples(r, examples[r.id], form)]


def read_rationales(artifacts: Sequence[Artifact]) -> list[Rationale]:
    """Every rationale of several stages, kept or dropped."""
    return [r for a in artifacts for r in read_rows(a.path / "rationales.parquet", Rationale)]


def build_training_sequence(lesson: TrainingExample, answer_weight: float) -> TrainingSequence:
    """The lesson as a training sequence; the answer's tokens weigh lambda = `answer_weight`."""
    if lesson.answer is None:
        return TrainingSequence(
            f"{lesson.id}:e", lesson.prompt, (TargetSpan(lesson.rationale or ""),)
        )
    if lesson.rationale is None:
        target = build_answer_target(lesson.answer, answer_weight)
        return TrainingSequence(f"{lesson.id}:p", lesson.prompt, target)
    target = build_cot_target(lesson.rationale, lesson.answer, answer_weight)
    return TrainingSequence(lesson.id, lesson.prompt, target)


def _build_examples(
    rationale: Rationale, example: Example, form: TargetFormat
) -> list[TrainingExample]:
    explain, source = render_cot_prompt(example), rationale.source
    answer = rationale.answer if example.answer is None else format_answer(example)
    if form == "joint":
        return [TrainingExample(example.id, explain, rationale.text, answer, source)]
    return [
        TrainingExample(example.id, explain, rationale.text, None, source),
        TrainingExample(example.id, render_answer_prompt(example), None, answer, source),
    ]
