"""What a model learns from rationales: the kept ones, each as a prompt and the text behind it.

The trainings and an export both come here, so that exported rows are those that were trained on.
"""

from collections.abc import Sequence
from typing import Literal

from bridgekd.core.prompts import (
    answer_prompt,
    answer_target,
    explain_prompt,
    explain_target,
    shown_answer,
)
from bridgekd.edges.rows import read_rows
from bridgekd.edges.store import Artifact
from bridgekd.errors import BadInput
from bridgekd.io.read_pool import index_by_id, read_pool
from bridgekd.records import Example, Lesson, Rationale, Span, TrainRow

Form = Literal["joint", "two_task"]


def lessons_of(pool: Artifact, rationales: Sequence[Artifact], form: Form) -> list[Lesson]:
    """Kept rationales as lessons, in order; the answer is the gold one where there is one.

    joint: one lesson a rationale, two_task: two, to explain and to answer. Raises BadInput where
    nothing was kept.
    """
    kept = [r for r in read_rationales(rationales) if r.kept]
    if not kept:
        raise BadInput(
            f"no rationale of {rationales[-1].path} was kept; read its `reason` column, then raise "
            "the budget, mend the teacher's prompt or loosen check.keep or annotate.keep"
        )
    examples = index_by_id(read_pool(pool), (r.id for r in kept))
    return [lesson for r in kept for lesson in _lessons(r, examples[r.id], form)]


def read_rationales(artifacts: Sequence[Artifact]) -> list[Rationale]:
    """Every rationale of several stages, kept or dropped."""
    return [r for a in artifacts for r in read_rows(a.path / "rationales.parquet", Rationale)]


def train_row(lesson: Lesson, answer_weight: float) -> TrainRow:
    """The lesson as a training sequence; the answer's tokens weigh lambda = `answer_weight`."""
    if lesson.answer is None:
        return TrainRow(f"{lesson.id}:e", lesson.prompt, (Span(lesson.rationale or ""),))
    if lesson.rationale is None:
        target = answer_target(lesson.answer, answer_weight)
        return TrainRow(f"{lesson.id}:p", lesson.prompt, target)
    target = explain_target(lesson.rationale, lesson.answer, answer_weight)
    return TrainRow(lesson.id, lesson.prompt, target)


def _lessons(rationale: Rationale, example: Example, form: Form) -> list[Lesson]:
    explain, source = explain_prompt(example), rationale.source
    answer = rationale.answer if example.answer is None else shown_answer(example)
    if form == "joint":
        return [Lesson(example.id, explain, rationale.text, answer, source)]
    return [
        Lesson(example.id, explain, rationale.text, None, source),
        Lesson(example.id, answer_prompt(example), None, answer, source),
    ]
