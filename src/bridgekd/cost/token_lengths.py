"""Draw the token counts of a model's next answers: its known answers, resampled twice.

The one idea: every draw of a forecast first resamples the known answers, because a small sample is
uncertain, and then draws one answer of this sample for each request, because answers vary. Two
unseen answers, one longer and one shorter than all known ones, are in the sample as half an answer
each: the next answer is longer than all n known ones with probability 1/(n+1).
`benchmarks/forecast.py` and `benchmarks/real/forecast_recorded.py` measure the coverage.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bridgekd.recipe import Price

MIN_ANSWERS = 20  # known answers that an interval needs
UNSEEN_WEIGHT = 0.5  # weight of each unseen answer; a known answer has 1
# Samples of n - 4 instead of n answers widen the interval as Student's t does against the normal
# distribution, to within 3 % from 20 answers on.
N_LEFT_OUT = 4
MIN_LOG_SD = 0.05  # of prompt sizes; if they vary less, they explain no lengths
BYTES_PER_TOKEN_RANGE = (3.0, 6.0)  # of prompts, if no answer of the model is known
GUESS_LOG_SD = 0.6  # of answer lengths around a guessed mean, on the log scale
EvidenceSource = Literal[
    "answers", "own answers", "other answers", "recordings", "guess", "nothing"
]


@dataclass(frozen=True, slots=True)
class KnownUsage:
    """One known answer of the model: the size of its prompt in bytes, and its billed tokens.

    No tokens: the request was refused without charge. is_truncated: the answer ended at
    `max_tokens`, so it may be longer under a higher limit.
    """

    n_prompt_bytes: int
    n_prompt_tokens: int
    n_completion_tokens: int
    n_cached_tokens: int = 0
    n_reasoning_tokens: int = 0
    is_truncated: bool = False

    @property
    def is_free(self) -> bool:
        return self.n_prompt_tokens + self.n_completion_tokens == 0


@dataclass(frozen=True, slots=True)
class LengthEvidence:
    """The evidence of a forecast, by its source.

    own answers: to requests of this purchase. answers: to requests with the same prompt template.
    other answers: of the model, with another template. recordings: the cost of every request is
    known. guess: the user's range of the mean completion; `answers` give only the prompt tokens.
    """

    source: EvidenceSource = "nothing"
    answers: Sequence[KnownUsage] = ()
    expected_completion_tokens: tuple[int, int] | None = None


NO_EVIDENCE = LengthEvidence()


def choose_evidence(
    own: Sequence[KnownUsage],
    similar: Sequence[KnownUsage],
    other: Sequence[KnownUsage],
    expected_completion_tokens: tuple[int, int] | None = None,
) -> LengthEvidence:
    """Return the most similar answers that are at least MIN_ANSWERS.

    With MIN_ANSWERS own answers, only these are used: the questions of this purchase may be harder
    than others. The user's guess comes before answers with another template.
    """
    if len(own) >= MIN_ANSWERS:
        return LengthEvidence("own answers", own)
    if len(own) + len(similar) >= MIN_ANSWERS:
        return LengthEvidence("answers", (*own, *similar))
    known = (*own, *similar, *other)
    if expected_completion_tokens is not None:
        return LengthEvidence("guess", known, expected_completion_tokens)
    return LengthEvidence("other answers", known) if len(known) >= MIN_ANSWERS else NO_EVIDENCE


@dataclass(frozen=True, slots=True)
class LengthDraws:
    """The answers that each draw samples from, in four columns of [n_draws, n_answers].

    Prompt tokens and their micro-dollars are per byte of the prompt. Completion tokens are for a
    prompt of `center_bytes` and scale with (size / center_bytes) ** exponent; their micro-dollars
    are per token. A refused request is 0 in all columns.
    """

    prompt_tokens: np.ndarray
    prompt_microusd: np.ndarray
    completion_tokens: np.ndarray
    completion_microusd: np.ndarray
    max_tokens: int
    center_bytes: float = 1.0
    exponent: float = 0.0

    def sample(
        self, draws: slice, n_bytes: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return tokens and micro-dollars of requests with prompts of `n_bytes` [n_draws, n]."""
        picks = rng.integers(self.completion_tokens.shape[1], size=n_bytes.shape)

        def take(column: np.ndarray) -> np.ndarray:
            return np.asarray(np.take_along_axis(column[draws], picks, axis=1))

        growth = (np.maximum(n_bytes, 1) / self.center_bytes) ** self.exponent
        completion = np.minimum(take(self.completion_tokens) * growth, self.max_tokens)
        cost = take(self.prompt_microusd) * n_bytes + take(self.completion_microusd) * completion
        return take(self.prompt_tokens) * n_bytes + completion, np.ceil(cost)


def draw_from_answers(
    answers: Sequence[KnownUsage],
    price: Price,
    max_tokens: int,
    n_draws: int,
    rng: np.random.Generator,
) -> LengthDraws | None:
    """Return `n_draws` samples of the known answers; None if none of them was served."""
    served = [u for u in answers if not u.is_free]
    if not served:
        return None
    n, n_served = len(answers), len(served)
    columns = np.zeros((4, n + 2))
    columns[:, :n_served] = np.array([_to_row(u, price) for u in served]).T
    log_size = np.log([max(1, u.n_prompt_bytes) for u in served])
    center = log_size.mean()
    exponent = _fit_exponent(log_size - center, np.log(columns[2, :n_served]))
    columns[2, :n_served] /= np.exp(exponent * (log_size - center))
    lengths = columns[2, :n_served]
    columns[:, n:] = columns[:, :n_served].mean(axis=1, keepdims=True)
    # On the log scale, the unseen answers are twice as far from the median as the extreme ones.
    columns[2, n:] = np.array([lengths.min(), lengths.max()]) ** 2 / np.median(lengths)
    weights = np.append(np.ones(n), [UNSEEN_WEIGHT, UNSEEN_WEIGHT])
    picks = rng.choice(n + 2, size=(n_draws, max(1, n - N_LEFT_OUT)), p=weights / weights.sum())
    prompt_tokens, prompt_microusd, completion_tokens, completion_microusd = columns[:, picks]
    is_truncated = np.array([u.is_truncated for u in served] + [False] * (n + 2 - n_served))
    # Under this limit a truncated answer may be longer. It is unknown by how much, so every draw
    # assumes another length.
    longer = np.maximum(max_tokens - completion_tokens, 0) * rng.random((n_draws, 1))
    return LengthDraws(
        prompt_tokens,
        prompt_microusd,
        completion_tokens + np.where(is_truncated[picks], longer, 0),
        completion_microusd,
        max_tokens,
        float(np.exp(center)),
        exponent,
    )


def _to_row(usage: KnownUsage, price: Price) -> tuple[float, ...]:
    """Return the four columns of LengthDraws for one answer, at the size of its own prompt.

    Fresh prompt tokens count as written to the cache, as in `compute_cost_microusd`.
    """
    n_prompt, n_completion = max(1, usage.n_prompt_tokens), max(1, usage.n_completion_tokens)
    n_cached = min(usage.n_cached_tokens, n_prompt)
    cached_rate = price.input if price.cached_input is None else price.cached_input
    prompt_microusd = (n_prompt - n_cached) * max(price.input, price.cache_write or 0)
    prompt_microusd += n_cached * cached_rate
    reasoning = min(usage.n_reasoning_tokens / n_completion, 1)
    reasoning_rate = price.output if price.reasoning is None else price.reasoning
    rate = price.output * (1 - reasoning) + reasoning_rate * reasoning
    n_bytes = max(1, usage.n_prompt_bytes)
    return n_prompt / n_bytes, prompt_microusd / n_bytes, n_completion, rate


def _fit_exponent(log_size: np.ndarray, log_length: np.ndarray) -> float:
    """Return the slope of log length on centered log prompt size, in [0, 1].

    Least squares with one pseudo-answer of slope 0. A slope above 1 would extrapolate too far for
    long prompts.
    """
    prior = max(float(log_size.std()), MIN_LOG_SD) ** 2
    return float(np.clip(log_size @ log_length / (log_size @ log_size + prior), 0, 1))


def draw_from_guess(
    expected_completion_tokens: tuple[int, int],
    answers: Sequence[KnownUsage],
    price: Price,
    max_tokens: int,
    n_draws: int,
    rng: np.random.Generator,
) -> LengthDraws:
    """Return draws whose mean completion is uniform in the range that the user expects."""
    low, high = (min(end, max_tokens) for end in expected_completion_tokens)
    mean = rng.uniform(low, high, size=(n_draws, 1))
    noise = rng.normal(-(GUESS_LOG_SD**2) / 2, GUESS_LOG_SD, size=(n_draws, 100))
    per_byte = 1 / rng.uniform(*BYTES_PER_TOKEN_RANGE, size=(n_draws, 1))
    if n_bytes := sum(u.n_prompt_bytes for u in answers if not u.is_free):
        known = sum(u.n_prompt_tokens for u in answers) / n_bytes
        per_byte = known * rng.uniform(0.9, 1.1, size=(n_draws, 1))
    per_byte = np.broadcast_to(per_byte, noise.shape)
    rate = np.full(noise.shape, price.output)
    return LengthDraws(per_byte, per_byte * price.input, mean * np.exp(noise), rate, max_tokens)
