"""How fast local models work: the kinds of work, rates of work, and what one stage generated."""

from dataclasses import dataclass
from enum import StrEnum

from bridgekd.recipe import FrozenModel


class WorkKind(StrEnum):
    """What kind of work a stage is: the first three take time here, PAID takes money."""

    TRAINING = "training"
    GENERATION = "generation"
    SCORING = "scoring"
    PAID = "paid"
    NONE = "none"


class WorkRate(FrozenModel):
    """Seconds of one call (an update, a decoding step, a batch), and of each token in it.

    >>> WorkRate(per_call_s=0.5, per_token_s=0.01).estimate(n_calls=2, n_tokens=300)
    4.0
    """

    per_call_s: float = 0.0
    per_token_s: float = 0.0

    def estimate(self, n_calls: float, n_tokens: float) -> float:
        """Return the seconds of this number of calls with this number of tokens in all."""
        return self.per_call_s * n_calls + self.per_token_s * n_tokens


@dataclass(frozen=True, slots=True)
class GenerationSpeed:
    """What a stage generated; `tokens_per_s` counts generated tokens."""

    n_texts: int
    n_prompt_tokens: int
    n_generated_tokens: int
    seconds: float
    tokens_per_s: float


@dataclass(slots=True)
class Throughput:
    """What was generated here and now. Texts that an earlier, cut-off try had written count
    neither as tokens nor as seconds.
    """

    n_texts: int = 0
    n_prompt_tokens: int = 0
    n_generated_tokens: int = 0
    seconds: float = 0.0

    def add(
        self, *, n_texts: int, n_prompt_tokens: int, n_generated_tokens: int, seconds: float
    ) -> None:
        """One more piece of work."""
        self.n_texts += n_texts
        self.n_prompt_tokens += n_prompt_tokens
        self.n_generated_tokens += n_generated_tokens
        self.seconds += seconds

    def to_stats(self) -> GenerationSpeed | None:
        """For a manifest; None where nothing was generated."""
        if not self.n_texts:
            return None
        return GenerationSpeed(
            n_texts=self.n_texts,
            n_prompt_tokens=self.n_prompt_tokens,
            n_generated_tokens=self.n_generated_tokens,
            seconds=round(self.seconds, 3),
            tokens_per_s=round(self.n_generated_tokens / max(self.seconds, 1e-9), 1),
        )
