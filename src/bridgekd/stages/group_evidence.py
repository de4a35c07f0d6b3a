"""What a mixture or a measure knows of the pool: pass rates of sampled rationales, and losses."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bridgekd.grading.answer_type import AnswerType
from bridgekd.io.artifact_store import Artifact
from bridgekd.io.lazy_rows import open_rows
from bridgekd.io.read_pool import read_answer_type, read_pool
from bridgekd.io.row_files import read_column
from bridgekd.records import Example, Rationale, Score
from bridgekd.selection.mixtures import MIXTURES
from bridgekd.variants import VariantRef, VariantSettings

AS_IS = VariantRef(name="as_is")


def read_pass_rates(
    samples: Artifact, examples: Sequence[Example], answer_type: AnswerType
) -> np.ndarray:
    """Return the fraction of each question's samples that end in its gold answer, [n] in [0, 1].

    samples: of the stage `sample_rationales`, over the same pool.
    """
    row_of = {example.id: row for row, example in enumerate(examples)}
    n_right, n_samples = np.zeros(len(row_of)), np.zeros(len(row_of))
    for sample in open_rows(samples.path / "rationales.parquet", Rationale):
        row = row_of[sample.id]
        n_samples[row] += 1
        n_right[row] += answer_type.matches_gold(sample.answer, examples[row])
    return n_right / n_samples


def resolve_mixture(ref: VariantRef, folder: Path) -> VariantSettings | None:
    """Return a mixture of the recipe as what a stage hashes; None if it changes no shares."""
    settings = MIXTURES.resolve(ref, folder)
    return None if settings == MIXTURES.resolve(AS_IS) else settings


def count_mixture_samples(mixture: VariantSettings) -> int:
    """Return the number of sampled rationales of each question that the mixture needs."""
    return MIXTURES.load(mixture).count_samples(MIXTURES.parse_options(mixture))


def needs_losses(mixture: VariantSettings) -> bool:
    """Return whether the mixture needs the losses of student and assistant."""
    return MIXTURES.load(mixture).needs_losses


def read_evidence(
    pool: Artifact, samples: Artifact | None, losses: Sequence[Artifact]
) -> dict[str, np.ndarray]:
    """Return the columns of `GroupEvidence` that the mixture needs, [n] each.

    losses: the scores of the student and of the assistant for the same questions, or nothing.
    """
    columns: dict[str, np.ndarray] = {}
    if samples is not None:
        columns["pass_rates"] = read_pass_rates(samples, read_pool(pool), read_answer_type(pool))
    if losses:
        for name, scores in zip(("losses", "reference_losses"), losses, strict=True):
            values = read_column(scores.path / "scores.parquet", Score, "difficulty")
            columns[name] = np.array(values)
    return columns
