"""The speed of local models: types of work, the time of work, and what one stage generated."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from bridgekd.recipe import FrozenModel


class WorkKind(StrEnum):
    """The type of a stage's work. The first three take time on this machine, PAID costs money."""

    TRAINING = "training"
    GENERATION = "generation"
    SCORING = "scoring"
    PAID = "paid"
    NONE = "none"


class WorkRate(FrozenModel):
    """Seconds per call (an update, a decoding step or a batch), plus seconds per token in it.

    >>> WorkRate(per_call_s=0.5, per_token_s=0.01).estimate(n_calls=2, n_tokens=300)
    4.0
    """

    per_call_s: float = 0.0
    per_token_s: float = 0.0

    def estimate(self, n_calls: float, n_tokens: float) -> float:
        """Return the seconds of `n_calls` calls with `n_tokens` tokens in total."""
        return self.per_call_s * n_calls + self.per_token_s * n_tokens


@dataclass(frozen=True, slots=True)
class GenerationSpeed:
    """What a stage generated, for its manifest. `tokens_per_s` counts generated tokens. `n_cut_off`
    texts reached `max_new_tokens` before their end.
    """

    n_texts: int
    n_prompt_tokens: int
    n_generated_tokens: int
    seconds: float
    tokens_per_s: float
    n_cut_off: int = 0


class TextLength(NamedTuple):
    """Of one generated text: its tokens, without the one that ended it, and whether it reached
    `max_new_tokens` before its end.
    """

    n_tokens: int
    is_cut_off: bool


OnSamples = Callable[[list[int], list[tuple[str, ...]], list[tuple[TextLength, ...]]], None]


@dataclass(slots=True)
class Throughput:
    """What this process generated. Texts of an earlier, interrupted process do not count."""

    n_texts: int = 0
    n_prompt_tokens: int = 0
    n_generated_tokens: int = 0
    seconds: float = 0.0
    n_cut_off: int = 0

    def add(
        self,
        *,
        n_texts: int,
        n_prompt_tokens: int,
        n_generated_tokens: int,
        seconds: float,
        n_cut_off: int = 0,
    ) -> None:
        """Add one batch of work."""
        self.n_cut_off += n_cut_off
        self.n_texts += n_texts
        self.n_prompt_tokens += n_prompt_tokens
        self.n_generated_tokens += n_generated_tokens
        self.seconds += seconds

    def to_stats(self) -> GenerationSpeed | None:
        """Return the rounded speed; None if this process generated nothing."""
        if not self.n_texts:
            return None
        rate = self.n_generated_tokens / max(self.seconds, 1e-9)
        counts = (self.n_texts, self.n_prompt_tokens, self.n_generated_tokens)
        return GenerationSpeed(
            *counts,
            seconds=round(self.seconds, 3),
            tokens_per_s=round(rate, 1),
            n_cut_off=self.n_cut_off,
        )
