"""Training rows from correct and wrong rationales: the wrong ones have negative weights."""

from collections.abc import Sequence
from dataclasses import replace

from bridgekd.grading.grade import is_wrong_answer
from bridgekd.io.artifact_store import Artifact
from bridgekd.io.read_pool import index_by_id, read_pool
from bridgekd.records import Example, Rationale, TrainingSequence
from bridgekd.stages.training_examples import (
    build_training_sequence,
    read_kept_rationales,
    read_rationales,
    split_rationale,
)
from bridgekd.variants import VariantSettings


def build_signed_rows(
    pool: Artifact,
    rationales: Sequence[Artifact],
    wrong: Sequence[Artifact],
    target_format: VariantSettings,
    answer_weight: float,
    alpha: float,
) -> tuple[list[TrainingSequence], int]:
    """Return the rows of REDI's second stage (arXiv 2505.24850), and the number of wrong texts.

    A group is one kept rationale, whose tokens have the total weight 1, and the different texts of
    its question that `wrong` dropped for a wrong answer, which share -alpha. That several wrong
    texts share the weight of one is our reading. A rationale without a wrong one is left out, as in
    the paper; if there is no wrong one at all, all rationales are rows. A wrong text ends in its
    own answer. With alpha 0 only the kept rationales are rows.
    """
    kept = read_kept_rationales(rationales)
    examples = index_by_id(read_pool(pool), (r.id for r in kept))
    wrong_texts: dict[str, dict[tuple[str, str], Rationale]] = {}
    for row in read_rationales(wrong):
        if row.id in examples and is_wrong_answer(row):
            wrong_texts.setdefault(row.id, {})[row.text, row.answer] = row

    def build(
        row: Rationale, example: Example, weight: float, group: str
    ) -> list[TrainingSequence]:
        return [
            replace(build_training_sequence(e, answer_weight), mean_weight=weight, group=group)
            for e in split_rationale(row, example, target_format)
        ]

    rows: list[TrainingSequence] = []
    for i, row in enumerate(kept):
        # Under the filter `all` a kept text may be one that other samples repeat.
        texts = [t for t in wrong_texts.get(row.id, {}).values() if t.text != row.text]
        if not texts and wrong_texts:
            continue
        example = examples[row.id]
        rows += build(row, example, 1.0, str(i))
        for text in texts if alpha else ():
            own = replace(example, answer=text.answer)
            rows += build(text, own, -alpha / len(texts), str(i))
    return rows, sum(map(len, wrong_texts.values()))
