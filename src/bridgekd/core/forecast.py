"""What a buying will cost, before it is done: sure bounds, and an interval where something is known
of the model's answers.

Three things that are never mixed up: `floor` and `ceiling`, which follow from limits, reserves and
prices alone; `low` to `high`, which holds the bill 95 times in 100; `expected`, their middle. The
interval comes from buying in many drawn worlds (`core/lengths.py`) under the real rule of
admission, so that a limit that ends the buying early is in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from bridgekd.config import Price
from bridgekd.core.admission import Limits
from bridgekd.core.bounds import Bounds, Call, held_microusd, held_tokens, n_affordable, sure_bounds
from bridgekd.core.lengths import N_ENOUGH, Usage, Worlds, by_answers, by_guess

N_WORLDS = 1000
N_COLUMNS = 4000  # calls that are drawn singly; of more, several are drawn as one
CHUNK = 500  # columns at once
TAIL = 0.025
NO_LIMITS = Limits()
Source = Literal["answers", "own answers", "other answers", "recordings", "guess", "nothing"]


@dataclass(frozen=True, slots=True)
class Known:
    """What a forecast is made from.

    answers: to requests like these; own answers: to this very purchase; other answers: of the
    model, but to requests of another make; recordings: what every call costs stands in a file;
    guess: a person's, of the mean length, with `answers` only for the prompts' tokens.
    """

    source: Source = "nothing"
    answers: Sequence[Usage] = ()
    expected_tokens: tuple[int, int] | None = None


NOTHING = Known()


def best_known(
    own: Sequence[Usage],
    alike: Sequence[Usage],
    other: Sequence[Usage],
    expected_tokens: tuple[int, int] | None = None,
) -> Known:
    """The best of what there is: answers to this purchase, to requests like it, a person's guess,
    answers to other requests.

    Answers to this purchase go with those like them, unless their lengths speak against it: chosen
    questions may be harder than any before.
    """
    if len(own) >= N_ENOUGH and _unlike(own, alike):
        return Known("own answers", own)
    if len(own) + len(alike) >= N_ENOUGH:
        return Known("answers" if alike else "own answers", (*own, *alike))
    seen = (*own, *alike, *other)
    if expected_tokens is not None:
        return Known("guess", seen, expected_tokens)
    return Known("other answers", seen) if len(seen) >= N_ENOUGH else NOTHING


def _unlike(some: Sequence[Usage], others: Sequence[Usage]) -> bool:
    """Whether mean log lengths differ by more than two standard errors (Welch)."""
    one, two = (np.log1p([u.n_completion_tokens for u in us]) for us in (some, others))
    if len(one) < 2 or len(two) < 2:
        return False
    error = np.sqrt(one.var(ddof=1) / len(one) + two.var(ddof=1) / len(two))
    return bool(abs(one.mean() - two.mean()) > 2 * error)


@dataclass(frozen=True, slots=True)
class Forecast:
    """The bill of one purchase, in micro-dollars: `new` money, and the `whole` with what recalled
    answers first cost, which is what counts against the budget. Both are None without a price.

    `n_queries` is the most there can be, `n_expected` how many of these the limits are likely to
    admit; `n_already` are in the ledger and cost nothing new. `accepting`: a limit on accepted
    answers ends the buying nobody knows where, so the interval spans every place that it may.
    """

    n_queries: int
    n_expected: int | None = None
    n_already: int = 0
    already_microusd: int = 0
    new: Bounds | None = None
    whole: Bounds | None = None
    basis: Source = "nothing"
    n_known: int = 0
    accepting: bool = False


def forecast(
    calls: Sequence[Call],
    *,
    price: Price | None,
    max_tokens: int,
    limits: Limits = NO_LIMITS,
    ordered: bool = False,
    known: Known = NOTHING,
    room_microusd: int | None = None,
) -> Forecast:
    """The bill of buying `calls` in their order or, unless `ordered`, as many of them as `limits`
    admit, of which nobody knows yet which.

    `room_microusd` is what the hard stop leaves for new money.
    """
    n = len(calls) if limits.queries is None else min(limits.queries, len(calls))
    limits = replace(limits, queries=n)
    settled = [c.settled for c in calls[:n] if c.settled and c.free] if ordered else []
    told = Forecast(
        n_queries=n_affordable(calls, limits, ordered=ordered),
        n_already=len(settled),
        already_microusd=sum(s.microusd for s in settled),
        basis=known.source,
        n_known=len(known.answers),
        accepting=limits.accepted is not None,
    )
    if price is None:
        return told
    new, whole = sure_bounds(calls, price, limits, ordered=ordered, room_microusd=room_microusd)
    told = replace(told, new=new, whole=whole)
    rng = np.random.default_rng(0)  # so that the same plan says the same
    worlds = _worlds(known, price, max_tokens, n, rng)
    if worlds is None or n == 0:
        return told
    bought = _bought(calls, worlds, limits, ordered=ordered, rng=rng)
    return replace(
        told,
        n_expected=min(n, int(np.median(bought.n))),
        new=_within(new, bought.new_soonest, bought.new),
        whole=_within(whole, bought.whole_soonest, bought.whole),
    )


def _worlds(
    known: Known, price: Price, max_tokens: int, n_calls: int, rng: np.random.Generator
) -> Worlds | None:
    how: dict[str, Any] = {"price": price, "max_tokens": max_tokens, "n": N_WORLDS, "rng": rng}
    if known.source == "nothing":
        return None
    if known.expected_tokens is not None:
        return by_guess(known.expected_tokens, known.answers, **how)
    return by_answers(known.answers, n_calls=n_calls, **how)


@dataclass(slots=True)
class _Bought:
    """What each world has bought so far, [n_worlds]; `soonest` is by the first place at which a
    limit on accepted answers may have ended it.
    """

    going: np.ndarray
    n: np.ndarray
    tokens: np.ndarray
    new: np.ndarray
    whole: np.ndarray
    new_soonest: np.ndarray
    whole_soonest: np.ndarray


@dataclass(frozen=True, slots=True)
class _Columns:
    """Calls to buy, in order: `table[:, which]` is [8, n_worlds or 1, n], a column standing for
    `size` calls. The rows are mean bytes, calls to draw, calls to pay, what is settled, what of it
    is owed, and its tokens; the last two are what admission asks room for. Without `which`, columns
    are drawn when they are needed.
    """

    table: np.ndarray
    which: np.ndarray | None
    n: int
    size: int

    def part(self, start: int, n_worlds: int, rng: np.random.Generator) -> np.ndarray:
        end = min(start + CHUNK, self.n)
        if self.which is None:
            size = (n_worlds, end - start)
            return self.table[:, rng.integers(self.table.shape[1], size=size)]
        return self.table[:, self.which[:, start:end]]


def _bought(
    calls: Sequence[Call],
    worlds: Worlds,
    limits: Limits,
    *,
    ordered: bool,
    rng: np.random.Generator,
) -> _Bought:
    """Buys in every world until its first limit."""
    bought = _Bought(np.ones(worlds.n, dtype=bool), *(np.zeros(worlds.n) for _ in range(6)))
    columns = _columns(calls, worlds, limits, ordered=ordered, rng=rng)
    for start in range(0, columns.n, CHUNK):
        part = columns.part(start, worlds.n, rng)
        _buy(bought, part, columns.size, worlds, limits, rng)
        if not bought.going.any():
            break
    return bought


def _buy(
    bought: _Bought,
    part: np.ndarray,
    size: int,
    worlds: Worlds,
    limits: Limits,
    rng: np.random.Generator,
) -> None:
    n_bytes, n_drawn, n_paid, settled, owed, settled_tokens, held, most_tokens = part
    drawn_tokens, drawn = worlds.draw(n_bytes, rng)
    drawn = np.minimum(drawn, held)
    whole, new = n_drawn * drawn + settled, n_paid * drawn + owed
    tokens = n_drawn * drawn_tokens + settled_tokens
    stop = np.zeros(whole.shape, dtype=bool)
    if limits.microusd is not None:
        stop |= _before(bought.whole, whole) + held > limits.microusd
    if limits.tokens is not None:
        stop |= _before(bought.tokens, tokens) + most_tokens > limits.tokens
    admitted = bought.going[:, None] & ~np.logical_or.accumulate(stop, axis=1)
    places = bought.n[:, None] + size * np.arange(whole.shape[1])
    soonest = admitted & (places < (np.inf if limits.accepted is None else limits.accepted))
    bought.new_soonest += (new * soonest).sum(axis=1)
    bought.whole_soonest += (whole * soonest).sum(axis=1)
    bought.new += (new * admitted).sum(axis=1)
    bought.whole += (whole * admitted).sum(axis=1)
    bought.tokens += (tokens * admitted).sum(axis=1)
    bought.n += size * admitted.sum(axis=1)
    bought.going &= admitted[:, -1]


def _before(so_far: np.ndarray, amounts: np.ndarray) -> np.ndarray:
    return np.asarray(so_far[:, None] + amounts.cumsum(axis=1) - amounts)


def _columns(
    calls: Sequence[Call],
    worlds: Worlds,
    limits: Limits,
    *,
    ordered: bool,
    rng: np.random.Generator,
) -> _Columns:
    n = limits.queries or 0
    table = np.array([_row(c) for c in (calls[:n] if ordered else calls)], dtype=float).T
    n_likely = _n_likely(table, worlds, limits, n, rng) if n > N_COLUMNS else n
    together = -(-n_likely // N_COLUMNS)
    if ordered:
        starts = np.arange(0, n, together)
        sizes = np.diff(np.append(starts, n))
        blocks = np.add.reduceat(table, starts, axis=1)
        blocks[0] /= sizes
        blocks[6:] = np.maximum.reduceat(table[6:], starts, axis=1)
        return _Columns(blocks, np.arange(len(starts))[None, :], len(starts), together)
    if n <= N_COLUMNS:
        some = [rng.choice(len(calls), n, replace=False) for _ in range(worlds.n)]
        return _Columns(table, np.array(some), n, 1)
    table[1:6] *= together
    return _Columns(table, None, -(-n // together), together)


def _n_likely(
    table: np.ndarray, worlds: Worlds, limits: Limits, n: int, rng: np.random.Generator
) -> int:
    """More calls than the limits are likely to admit."""
    some = rng.choice(table.shape[1], min(200, table.shape[1]), replace=False)
    tokens, microusd = worlds.draw(table[:1, some], rng)
    for limit, amount in ((limits.microusd, microusd), (limits.tokens, tokens)):
        if limit is not None and amount.mean() > 0:
            n = min(n, int(3 * limit / amount.mean()) + 100)
    return n


def _row(call: Call) -> tuple[float, ...]:
    known = call.settled
    amount = known.microusd if known else 0
    return (
        call.n_bytes,
        known is None,
        known is None and not call.free,
        amount,
        0 if call.free else amount,
        known.n_tokens if known else 0,
        held_microusd(call),
        held_tokens(call),
    )


def _within(sure: Bounds, soonest: np.ndarray, bought: np.ndarray) -> Bounds:
    """The middle 95 % of worlds; where nobody knows how far the buying goes, from the shortest to
    the longest.
    """
    ends = (np.quantile(soonest, TAIL), np.median(bought), np.quantile(bought, 1 - TAIL) + 1)
    low, expected, high = (int(np.clip(end, sure.floor, sure.ceiling)) for end in ends)
    known = np.array_equal(soonest, bought)
    return replace(sure, low=low, expected=expected if known else None, high=high)
