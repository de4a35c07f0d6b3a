"""How fast a local model writes: tokens and seconds of one stage, added up as it writes."""

from dataclasses import dataclass


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
