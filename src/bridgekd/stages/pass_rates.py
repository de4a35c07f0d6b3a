"""Read the pass rates of questions from sampled rationales."""

from collections.abc import Sequence

import numpy as np

from bridgekd.grading.answer_type import AnswerType
from bridgekd.io.artifact_store import Artifact
from bridgekd.io.lazy_rows import open_rows
from bridgekd.records import Example, Rationale


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
