"""Training examples from rationales: each kept rationale as a prompt and its target text.

Trainings and exports both use this module, so exported rows are the rows of the training.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from bridgekd.errors import InputError
from bridgekd.io.artifact_store import Artifact
from bridgekd.io.read_pool import index_by_id, read_pool
from bridgekd.io.row_files import read_rows
from bridgekd.prompts import (
    add_solution,
    build_answer_target,
    build_cot_target,
    format_answer,
    render_answer_prompt,
    render_cot_prompt,
)
from bridgekd.records import Example, Rationale, TargetSpan, TrainingExample, TrainingSequence

TargetFormat = Literal["joint", "multi_task"]
ReferenceSees = Literal["question", "rationale"]


def build_training_examples(
    pool: Artifact, rationales: Sequence[Artifact], target_format: TargetFormat
) -> list[TrainingExample]:
    """Return the kept rationales as training examples, in order. The answer is the gold answer,
    or the rationale's own if there is none.

    joint: one example per rationale. multi_task: two, a rationale and an answer. Raises InputError
    if no rationale was kept.
    """
    kept = [r for r in read_rationales(rationales) if r.kept]
    if not kept:
        raise InputError(
            f"No rationale of {rationales[-1].path} was kept. Read its `reason` column. Then raise "
            "the budget, fix the teacher's prompt, or relax check.filter or annotate.filter."
        )
    examples = index_by_id(read_pool(pool), (r.id for r in kept))
    return [e for r in kept for e in _build_examples(r, examples[r.id], target_format)]


def read_rationales(artifacts: Sequence[Artifact]) -> list[Rationale]:
    """Return every rationale of several stages, kept or dropped."""
    return [r for a in artifacts for r in read_rows(a.path / "rationales.parquet", Rationale)]


def build_training_sequence(example: TrainingExample, answer_weight: float) -> TrainingSequence:
    """Return an example as a training sequence. `answer_weight` is the weight lambda of the
    answer's tokens in the loss.
    """
    if example.answer is None:
        span = TargetSpan(example.rationale or "")
        return TrainingSequence(f"{example.id}:e", example.prompt, (span,))
    if example.rationale is None:
        target = build_answer_target(example.answer, answer_weight)
        return TrainingSequence(f"{example.id}:p", example.prompt, target)
    target = build_cot_target(example.rationale, example.answer, answer_weight)
    return TrainingSequence(example.id, example.prompt, target)


def build_rationale_sequences(
    pool: Artifact,
    rationales: Sequence[Artifact],
    target_format: TargetFormat,
    answer_weight: float = 1.0,
    sees: ReferenceSees = "question",
) -> list[TrainingSequence]:
    """Return the kept rationales as training sequences. sees: what a reference model reads."""
    examples = build_training_examples(pool, rationales, target_format)
    sequences = [build_training_sequence(e, answer_weight) for e in examples]
    if sees == "question":
        return sequences
    return [replace(s, reference_prompt=add_solution(s.prompt, s.text)) for s in sequences]


def _build_examples(
    rationale: Rationale, example: Example, target_format: TargetFormat
) -> list[TrainingExample]:
    prompt, source = render_cot_prompt(example), rationale.source
    answer = rationale.answer if example.answer is None else format_answer(example)
    if target_format == "joint":
        return [TrainingExample(example.id, prompt, rationale.text, answer, source)]
    return [
        TrainingExample(example.id, prompt, rationale.text, None, source),
        TrainingExample(example.id, render_answer_prompt(example), None, answer, source),
    ]
