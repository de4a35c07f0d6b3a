"""The measure of difficulty as a variant: its formula, and what it needs from the assistant."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

OptionsT = TypeVar("OptionsT", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class DifficultyMeasure(Generic[OptionsT]):
    """How hard a question is for the assistant: higher is harder, in any unit.

    It has exactly one of five sources:

    scores_loss: the difficulty is the mean loss in nats of the gold answer's tokens.
    score_choices, score_tokens: the model's own certainty. `score_choices` gets the mean
    log-likelihood per token of every choice, [C]. Questions without choices go to `score_tokens`,
    with the logits of the model's greedy answer as a torch tensor [t, vocabulary]. It returns [t],
    and the difficulty is the mean. No inference server returns such logits.
    score_answers: gets the extracted answers of `count_answers(options)` texts: samples of one
    assistant or, with `needs_committee`, one text of each of this number of assistants. The answer
    of an unreadable text is "".
    score_pass_rate: gets the fraction, in [0, 1], of `count_answers(options)` sampled rationales
    that end in the gold answer. The assistant writes them before its warm-up.
    score_reduction: gets the reduction of each question's loss in nats by training on the gold
    answers of other questions, [n], and the number of each question's stratum, [n]. It returns [n].
    The pool is cut into two halves. For each, an assistant is warmed up on some questions of the
    other half, and then trained on all of them; the reduction is the difference of their losses.
    """

    name: str
    title: str
    summary: str
    paper: str = ""
    options: type[OptionsT]
    scores_loss: bool = False
    score_choices: Callable[[NDArray[np.float64]], float] | None = None
    # Any: a torch tensor. This package does not import torch.
    score_tokens: Callable[[Any], Any] | None = None
    score_answers: Callable[[Sequence[str]], float] | None = None
    count_answers: Callable[[OptionsT], int] = lambda options: 0
    needs_committee: bool = False
    score_pass_rate: Callable[[float], float] | None = None
    score_reduction: (
        Callable[[NDArray[np.float64], NDArray[np.int64]], NDArray[np.float64]] | None
    ) = None

    def __post_init__(self) -> None:
        others = (self.score_answers, self.score_pass_rate, self.score_reduction)
        if self.reads_model + sum(source is not None for source in others) != 1 or (
            self.scores_loss and (self.score_choices or self.score_tokens)
        ):
            raise ValueError(
                "A DifficultyMeasure has either scores_loss, or score_choices and score_tokens, or "
                "score_answers, or score_pass_rate, or score_reduction."
            )

    @property
    def reads_model(self) -> bool:
        """Whether it follows from one pass of the warm assistant over each question."""
        has_certainty = self.score_choices is not None or self.score_tokens is not None
        return self.scores_loss or has_certainty

    @property
    def needs_gold(self) -> bool:
        """Whether every question needs a gold answer."""
        reads_samples = self.score_pass_rate is not None
        return self.scores_loss or reads_samples or self.score_reduction is not None

    @property
    def samples_answers(self) -> bool:
        """Whether one assistant samples several answers of each question."""
        return self.score_answers is not None and not self.needs_committee

    def needs_token_probabilities(self, has_choices: bool) -> bool:
        """Return whether it needs the probability of every token of the vocabulary."""
        return self.score_tokens is not None and not (has_choices and self.score_choices)
