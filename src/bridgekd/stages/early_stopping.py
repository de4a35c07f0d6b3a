"""What early stopping measures. The values can be sent to another process."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from bridgekd import lm
from bridgekd.errors import InputError
from bridgekd.grading.answer_type import AnswerType
from bridgekd.grading.grade import grade_answer
from bridgekd.prompts import ANSWER_LINE, render_answer_prompt, render_cot_prompt
from bridgekd.recipe import CountOrPercent, TokenLimit, resolve_count
from bridgekd.records import Example, TrainingSequence
from bridgekd.rng import make_rng
from bridgekd.stages.token_limit import choose_token_limit
from bridgekd.throughput import Throughput

PromptMode = Literal["cot", "answer_only"]
PROMPTS = {"cot": render_cot_prompt, "answer_only": render_answer_prompt}


@dataclass(frozen=True, slots=True)
class GreedyAccuracy:
    """The accuracy of a model's greedy answers to questions with gold answers."""

    examples: tuple[Example, ...]
    answer_type: AnswerType
    prompt_mode: PromptMode
    max_new_tokens: TokenLimit
    batch_size: int | None
    speed: Throughput = field(default_factory=Throughput)

    def __call__(self, local: "lm.LocalModel", longest_target: int) -> float:
        texts = lm.generate_texts(
            local,
            [PROMPTS[self.prompt_mode](e) for e in self.examples],
            max_new_tokens=choose_token_limit(self.max_new_tokens, longest_target),
            batch_size=self.batch_size,
            until=ANSWER_LINE,
            throughput=self.speed,
        )
        pairs = zip(self.examples, texts, strict=True)
        n_correct = sum(grade_answer(e, t, self.answer_type).correct for e, t in pairs)
        return n_correct / len(self.examples)


@dataclass(frozen=True, slots=True)
class AnswerReward:
    """The reward of a text: 1 if its answer is the gold answer of the question with this id."""

    examples: Mapping[str, Example]
    answer_type: AnswerType

    def __call__(self, question_id: str, text: str) -> float:
        return float(grade_answer(self.examples[question_id], text, self.answer_type).correct)


@dataclass(frozen=True, slots=True)
class HeldOutLoss:
    """Minus the mean loss of a model on held-out rows, so that higher is better."""

    rows: tuple[TrainingSequence, ...]
    max_length: int

    def __call__(self, local: "lm.LocalModel", longest_target: int) -> float:
        return -lm.compute_eval_loss(local, self.rows, self.max_length)


def split_held_out(
    rows: Sequence[TrainingSequence], size: CountOrPercent, seed: int
) -> tuple[list[TrainingSequence], list[TrainingSequence]]:
    """Return (training rows, held-out rows). All rows of a question go together."""
    ids = sorted({row.id for row in rows})
    n = resolve_count(size, len(ids))
    if n >= len(ids):
        raise InputError(
            f"train.holdout_size of {size} holds out {n} of {len(ids)} questions and leaves none "
            "for training. Lower it."
        )
    sampled = make_rng(seed, "held-out").permutation(len(ids))[:n]
    held_out = {ids[i] for i in sampled.tolist()}
    return (
        [row for row in rows if row.id not in held_out],
        [row for row in rows if row.id in held_out],
    )
