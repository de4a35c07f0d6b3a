"""How many tokens further calls will take: many worlds, each as likely as the others by what is
known.

The one idea: a world has its own mean length, its own shares of refused and cut answers and, where
cached or reasoning tokens cost something else, its own prices per token. Single calls are drawn
around these by resampling what was left over when the known answers were fitted. So a sum over
calls has both the luck of the calls and our ignorance of their mean, and the long tail that answers
have. Which variant of this holds its 95 % was measured: `benchmarks/forecast.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bridgekd.config import Price

N_ENOUGH = 20  # known answers from which lengths are estimated
# What nobody has seen yet, as parts of an answer: refused, run to the limit. Without them 20 known
# answers would say that neither can happen.
UNSEEN = np.array([0.25, 0.25, 0.0])
BYTES_PER_TOKEN = (3.0, 6.0)  # where no answer of the model is known
GUESSED_SPREAD = 0.6  # of the logarithm of single lengths around a guessed mean
FEWEST = 4  # rows below which no line is fitted
_FURTHEST = 4.0  # standard deviations of log bytes to which a slope is followed


@dataclass(frozen=True, slots=True)
class Usage:
    """One known answer of the model: its prompt's size in bytes and what was billed.

    No tokens at all is a request that was refused free of charge. `cut` says that the answer ended
    at the call's own limit, so that a longer limit might have let it go on.
    """

    n_prompt_bytes: int
    n_prompt_tokens: int
    n_completion_tokens: int
    n_cached_tokens: int = 0
    n_reasoning_tokens: int = 0
    cut: bool = False

    @property
    def free(self) -> bool:
        return self.n_prompt_tokens + self.n_completion_tokens == 0


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens by the size of the prompt: in every world a line in logarithms, [n, 1] each, and
    residuals in units of `spread` that single calls are drawn from.
    """

    level: np.ndarray
    slope: np.ndarray  # per `scale` of log bytes away from `centre`
    spread: np.ndarray
    residuals: np.ndarray
    centre: float = 0.0
    scale: float = 1.0
    factor: float = 1.0
    per_byte: bool = False  # tokens per byte of the prompt rather than tokens

    def draw(self, n_bytes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Tokens of calls with prompts of `n_bytes` [n or 1, k], as [n, k]."""
        log = np.log(np.maximum(n_bytes, 1))
        x = np.clip((log - self.centre) / self.scale, -_FURTHEST, _FURTHEST)
        shape = (len(self.level), n_bytes.shape[1])
        residuals = self.residuals[rng.integers(len(self.residuals), size=shape)]
        line = self.level + self.slope * x + self.spread * residuals
        if self.per_byte:
            line = line + log
        return np.asarray(np.exp(np.minimum(line, 25)) * self.factor)


def fitted(
    n_bytes: np.ndarray,
    tokens: np.ndarray,
    n: int,
    rng: np.random.Generator,
    *,
    per_byte: bool = False,
) -> Lengths:
    """Lengths in `n` worlds by known calls: least squares, with place, slope and spread differing
    by world as far as the rows leave them open, and the mean over the rows as it was.
    """
    if len(tokens) < FEWEST:  # anything from 1 to the limit, wherever that is
        ones = np.ones((n, 1))
        return Lengths(0 * ones, 0 * ones, ones, np.linspace(0, 12, 25), per_byte=False)
    log = np.log(n_bytes)
    centre, scale = float(log.mean()), max(float(log.std()), 0.05)
    offset = log if per_byte else np.zeros(len(log))
    y = np.log(tokens) - offset
    rows = np.column_stack([np.ones(len(log)), (log - centre) / scale])
    # the 1: a row's worth of belief that the size of the prompt says nothing (more)
    inverse = np.linalg.inv(rows.T @ rows + np.diag([0.0, 1.0]))
    line = inverse @ rows.T @ y
    residuals, free = y - rows @ line, len(log) - 2
    sigma = float(np.sqrt(max(residuals @ residuals / free, 1e-12)))
    spread = sigma * np.sqrt(free / rng.chisquare(free, size=(n, 1)))
    drawn = line + spread * (rng.normal(size=(n, 2)) @ np.linalg.cholesky(inverse).T)
    plain = np.exp((rows @ line + offset)[:, None] + residuals).mean()
    return Lengths(
        drawn[:, :1],
        drawn[:, 1:],
        spread,
        residuals / sigma,
        centre,
        scale,
        float(tokens.mean() / plain),
        per_byte,
    )


def told(mean: np.ndarray, spread: float, *, per_byte: bool = False) -> Lengths:
    """Lengths whose mean [n] somebody told; single ones are lognormal around it."""
    zeros = np.zeros((len(mean), 1))
    normal = np.random.default_rng(0).normal(size=1000)
    level = np.log(mean)[:, None] - spread**2 / 2
    return Lengths(level, zeros, zeros + spread, normal, per_byte=per_byte)


@dataclass(frozen=True, slots=True)
class Worlds:
    """`n` worlds that draw calls. `shares` [n, 2] are of the refused and of the cut, `at_cut` [n]
    is the length of the cut, `rates` [n, 2] are micro-dollars per token of prompt and answer.
    """

    prompt: Lengths
    answer: Lengths
    shares: np.ndarray
    at_cut: np.ndarray
    rates: np.ndarray
    max_tokens: int

    @property
    def n(self) -> int:
        return len(self.shares)

    def draw(self, n_bytes: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and micro-dollars of calls with prompts of `n_bytes` [n or 1, k], as [n, k]."""
        prompt = self.prompt.draw(n_bytes, rng)
        answer = np.clip(self.answer.draw(n_bytes, rng), 1, self.max_tokens)
        kind = rng.random(answer.shape)
        refused, cut = self.shares[:, :1], self.shares[:, 1:2]
        answer = np.where(kind < refused + cut, self.at_cut[:, None], answer)
        cost = np.ceil(prompt * self.rates[:, :1] + answer * self.rates[:, 1:])
        served = kind >= refused
        return np.where(served, prompt + answer, 0.0), np.where(served, cost, 0.0)


def by_answers(
    known: Sequence[Usage],
    *,
    price: Price,
    max_tokens: int,
    n: int,
    n_calls: int,
    rng: np.random.Generator,
) -> Worlds:
    """`n` worlds by known answers. `n_calls` is how many calls one will be asked for: over them,
    what differs from call to call evens out.
    """
    served = [u for u in known if not u.free]
    over = np.array([u.cut or u.n_completion_tokens >= max_tokens for u in served], dtype=bool)
    prompt = np.array([max(1, u.n_prompt_tokens) for u in served], dtype=float)
    answer = np.array([max(1, u.n_completion_tokens) for u in served], dtype=float)
    n_bytes = np.array([max(1, u.n_prompt_bytes) for u in served], dtype=float)
    counts = np.array([len(known) - len(served), over.sum(), (~over).sum()])
    shares = rng.gamma(np.maximum(counts + UNSEEN, 1e-9), size=(n, 3))
    at_cut = np.full(n, float(max_tokens))
    if over.any():  # how much further they would have gone, nobody knows
        at_cut -= rng.random(n) * (max_tokens - np.minimum(answer[over], max_tokens).mean())
    return Worlds(
        fitted(n_bytes, prompt, n, rng, per_byte=True),
        fitted(n_bytes[~over], answer[~over], n, rng),
        (shares / shares.sum(axis=1, keepdims=True))[:, :2],
        at_cut,
        _rates(served, price, n, n_calls, rng),
        max_tokens,
    )


def by_guess(
    expected: tuple[int, int],
    known: Sequence[Usage],
    *,
    price: Price,
    max_tokens: int,
    n: int,
    rng: np.random.Generator,
) -> Worlds:
    """`n` worlds by a person's guess of the mean answer: it lies anywhere between the two ends."""
    low, high = (min(end, max_tokens) for end in expected)
    per_byte = 1 / rng.uniform(*BYTES_PER_TOKEN, size=n)
    if n_bytes := sum(u.n_prompt_bytes for u in known if not u.free):
        per_byte = sum(u.n_prompt_tokens for u in known) / n_bytes * rng.uniform(0.9, 1.1, size=n)
    return Worlds(
        told(per_byte, 0.0, per_byte=True),
        told(rng.uniform(low, high, size=n), GUESSED_SPREAD),
        np.zeros((n, 2)),
        np.full(n, float(max_tokens)),
        np.tile([price.input, price.output], (n, 1)),
        max_tokens,
    )


def _rates(
    served: Sequence[Usage], price: Price, n: int, n_calls: int, rng: np.random.Generator
) -> np.ndarray:
    """Micro-dollars per token of prompt and answer [n, 2], with the known answers' cached and
    reasoning tokens at their own prices.
    """
    columns = []
    for total, part, usual, special in (
        ("n_prompt_tokens", "n_cached_tokens", price.input, price.cached),
        ("n_completion_tokens", "n_reasoning_tokens", price.output, price.reasoning),
    ):
        tokens = np.array([getattr(u, total) for u in served], dtype=float)
        parts = np.minimum([getattr(u, part) for u in served], tokens)
        other = usual if special is None else special
        if other == usual or not tokens.sum():
            columns.append(np.full(n, usual))
            continue
        share = parts.sum() / tokens.sum()
        m = len(served)
        left = (parts - share * tokens) / tokens.mean()
        drawn = share + rng.normal(size=n) * left.std() * np.sqrt(1 / m + 1 / max(1, n_calls))
        columns.append(usual + (other - usual) * np.clip(drawn, 0, 1))
    return np.column_stack(columns)
