"""What early stopping asks: values that can be handed to another process."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from bridgekd import lm
from bridgekd.config import Amount, count_of
from bridgekd.core.draws import stream
from bridgekd.core.prompts import ANSWER_LINE, answer_prompt, explain_prompt
from bridgekd.core.throughput import Throughput
from bridgekd.errors import BadInput
from bridgekd.grading.answer_type import AnswerType
from bridgekd.grading.grade import grade_answer
from bridgekd.records import Example, TrainRow

Asked = Literal["explain", "answer"]
Validate = Callable[["lm.LocalModel"], float]
PROMPTS = {"explain": explain_prompt, "answer": answer_prompt}


@dataclass(frozen=True, slots=True)
class GreedyAccuracy:
    """Judges a model by its greedy answers to questions with gold answers."""

    examples: tuple[Example, ...]
    answer_type: AnswerType
    asked: Asked
    max_new_tokens: int
    batch_size: int | None
    speed: Throughput = field(default_factory=Throughput)

    def __call__(self, local: "lm.LocalModel") -> float:
        texts = lm.generate(
            local,
            [PROMPTS[self.asked](e) for e in self.examples],
            max_new_tokens=self.max_new_tokens,
            batch_size=self.batch_size,
            until=ANSWER_LINE,
            throughput=self.speed,
        )
        pairs = zip(self.examples, texts, strict=True)
        n_correct = sum(grade_answer(e, t, self.answer_type).correct for e, t in pairs)
        return n_correct / len(self.examples)


@dataclass(frozen=True, slots=True)
class SmallLoss:
    """Judges a model by minus its mean loss on rows that it is not trained on."""

    rows: tuple[TrainRow, ...]
    max_length: int

    def __call__(self, local: "lm.LocalModel") -> float:
        return -lm.mean_loss(local, self.rows, self.max_length)


def held_out(
    rows: Sequence[TrainRow], share: Amount, seed: int
) -> tuple[list[TrainRow], list[TrainRow]]:
    """(rows to train on, rows to judge by), drawn by question: its two tasks stay together."""
    ids = sorted({_question_of(row) for row in rows})
    n = count_of(share, len(ids))
    if n >= len(ids):
        raise BadInput(
            f"held_out sets {n} of {len(ids)} questions aside and leaves none to train on; lower it"
        )
    drawn = stream(seed, "held-out").permutation(len(ids))[:n]
    aside = {ids[i] for i in drawn.tolist()}
    return (
        [row for row in rows if _question_of(row) not in aside],
        [row for row in rows if _question_of(row) in aside],
    )


def _question_of(row: TrainRow) -> str:
    return row.id.removesuffix(":e").removesuffix(":p")
