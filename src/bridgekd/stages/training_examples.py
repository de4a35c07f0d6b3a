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
)
from bridgekd.records import Example, Rationale, TargetSpan, TrainingExample, TrainingSequence
from bridgekd.targets import TARGET_FORMATS
from bridgekd.variants import VariantSettings

ReferenceSees = Literal["question", "rationale"]


def build_training_examples(
    pool: Artifact, rationales: Sequence[Artifact], target_format: VariantSettings
) -> list[TrainingExample]:
    """Return the kept rationales as training examples, in order. The answer is the gold answer,
    or the rationale's own if there is none. Raises InputError if no rationale was kept.
    """
    kept = read_kept_rationales(rationales)
    examples = index_by_id(read_pool(pool), (r.id for r in kept))
    return [e for r in kept for e in split_rationale(r, examples[r.id], target_format)]


def read_kept_rationales(artifacts: Sequence[Artifact]) -> list[Rationale]:
    """Return the kept rationales of several stages; raise InputError if there is none."""
    kept = [r for r in read_rationales(artifacts) if r.kept]
    if not kept:
        raise InputError(
            f"No rationale of {artifacts[-1].path} was kept. Read its `reason` column. Then raise "
            "the budget, fix the teacher's prompt, or relax check.filter or annotate.filter."
        )
    return kept


def read_rationales(artifacts: Sequence[Artifact]) -> list[Rationale]:
    """Return every rationale of several stages, kept or dropped."""
    return [r for a in artifacts for r in read_rows(a.path / "rationales.parquet", Rationale)]


def build_training_sequence(example: TrainingExample, answer_weight: float) -> TrainingSequence:
    """Return an example as a training sequence. `answer_weight` is the weight lambda of the
    answer's tokens in the loss.
    """
    if example.answer is None:
        target: tuple[TargetSpan, ...] = (TargetSpan(example.rationale or ""),)
    elif example.rationale is None:
        target = build_answer_target(example.answer, answer_weight)
    else:
        target = build_cot_target(example.rationale, example.answer, answer_weight)
    return TrainingSequence(
        example.id, example.prompt, target, loss_start=example.loss_start, loss_end=example.loss_end
    )


def build_rationale_sequences(
    pool: Artifact,
    rationales: Sequence[Artifact],
    target_format: VariantSettings,
    answer_weight: float = 1.0,
    sees: ReferenceSees = "question",
) -> list[TrainingSequence]:
    """Return the kept rationales as training sequences. sees: what a reference model reads."""
    examples = build_training_examples(pool, rationales, target_format)
    sequences = [build_training_sequence(e, answer_weight) for e in examples]
    if sees == "question":
        return sequences
    return [replace(s, reference_prompt=add_solution(s.prompt, s.text)) for s in sequences]


def split_rationale(
    rationale: Rationale, example: Example, target_format: VariantSettings
) -> list[TrainingExample]:
    """Return the training examples of a rationale."""
    answer = rationale.answer if example.answer is None else format_answer(example)
    options = TARGET_FORMATS.parse_options(target_format)
    return TARGET_FORMATS.load(target_format).build(example, rationale, answer, options)
