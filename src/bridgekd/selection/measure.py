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

    It has exactly one of three sources:

    needs_gold: the difficulty is the mean loss in nats of the gold answer's tokens.
    score_choices, score_tokens: the model's own certainty. `score_choices` gets the mean
    log-likelihood per token of every choice, [C]. Questions without choices go to `score_tokens`,
    with the logits of the model's greedy answer as a torch tensor [t, vocabulary]. It returns [t],
    and the difficulty is the mean. No inference server returns such logits.
    score_answers: gets the extracted answers of `count_answers(options)` texts: samples of one
    assistant or, with `needs_committee`, one text of each of this number of assistants. The answer
    of an unreadable text is "".
    """

    name: str
    title: str
    summary: str
    paper: str = ""
    options: type[OptionsT]
    needs_gold: bool = False
    score_choices: Callable[[NDArray[np.float64]], float] | None = None
    # Any: a torch tensor. This package does not import torch.
    score_tokens: Callable[[Any], Any] | None = None
    score_answers: Callable[[Sequence[str]], float] | None = None
    count_answers: Callable[[OptionsT], int] = lambda options: 0
    needs_committee: bool = False

    def __post_init__(self) -> None:
        reads_certainty = self.score_choices is not None or self.score_tokens is not None
        if self.needs_gold + reads_certainty + (self.score_answers is not None) != 1:
            raise ValueError(
                "A DifficultyMeasure has either needs_gold, or score_choices and score_tokens, or "
                "score_answers."
            )

    @property
    def samples_answers(self) -> bool:
        """Whether one assistant samples several answers of each question."""
        return self.score_answers is not None and not self.needs_committee

    def needs_token_probabilities(self, has_choices: bool) -> bool:
        """Return whether it needs the probability of every token of the vocabulary."""
        return self.score_tokens is not None and not (has_choices and self.score_choices)
