"""The bill beforehand: what is sure is sure, and the interval holds 95 times in 100."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from bridgekd.config import Price
from bridgekd.core.admission import Account, Charge, Limits
from bridgekd.core.bounds import Settled, calls_for
from bridgekd.core.forecast import Known, best_known, forecast
from bridgekd.core.lengths import Usage
from bridgekd.records import Message

PRICE = Price(input=2.5, output=10.0)


def prompts(n, seed=0):
    rng = np.random.default_rng(seed)
    return [(Message("user", "x" * int(k)),) for k in rng.integers(50, 400, size=n)]


def calls(n, *, seed=0, max_tokens=64, price=PRICE, **known):
    return calls_for(prompts(n, seed), price, max_tokens, **known)


def usages(n, mean=100, *, seed=0, shape=0.5, most=10_000):
    """Known answers of a teacher with four bytes a token."""
    rng = np.random.default_rng([7, seed])
    lengths = np.exp(shape * rng.normal(size=n) - shape**2 / 2) * mean
    return [
        Usage(len(p[0].content), len(p[0].content) // 4, k, cut=k == most)
        for p, k in zip(prompts(n, seed + 1), np.clip(lengths, 1, most).astype(int), strict=True)
    ]


def told(asked, known=None, *, max_tokens=64, price=PRICE, **how):
    known = Known() if known is None else known
    return forecast(asked, price=price, max_tokens=max_tokens, known=known, **how)


def bought(asked, limits, costs, n_tokens):
    """What the real rule of admission charges, and what of it is new money."""
    account, paid = Account(limits), 0
    for call, cost, size in zip(asked, costs, n_tokens, strict=True):
        least_held = (call.most_microusd, call.most_tokens)
        if call.settled:
            cost, size = call.settled.microusd, call.settled.n_tokens
            least_held = (0, 0) if call.settled.owed else least_held
        most = Charge(1, max(least_held[0], cost), max(least_held[1], size), 1)
        if account.lacking(most):
            break
        account.hold(most)
        accepted = int(limits.accepted is not None and cost % 2)
        account.settle(most, Charge(1, cost, size, accepted))
        paid += 0 if call.free else cost
    return account.charged.microusd, paid


@st.composite
def purchases(draw):
    """Calls with some answers known and some questions twice, any limits, any honest bills."""
    n = draw(st.integers(1, 30))
    price = Price(
        input=draw(st.floats(0, 10)),
        output=draw(st.floats(0, 30)),
        cached=draw(st.none() | st.floats(0, 10)),
    )
    max_tokens = draw(st.integers(1, 300))
    some = st.none() | st.builds(Settled, st.integers(0, 5000), st.integers(0, 500), st.booleans())
    settled = draw(st.lists(some, min_size=n, max_size=n))
    repeats = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    asked = calls(n, price=price, max_tokens=max_tokens, settled=settled, repeats=repeats)
    share = st.floats(0, 1)
    costs, sizes = [], []
    for call in asked:
        size = call.least_tokens + draw(share) * (call.most_tokens - call.least_tokens)
        sizes.append(int(size))
        rates = [r for r in (price.input, price.output, price.cached) if r is not None]
        low = max(call.least_microusd, int(np.ceil(int(size) * min(rates))))
        high = min(call.most_microusd, int(int(size) * max(rates)))
        costs.append(max(low, int(low + draw(share) * (high - low))))
    limit = st.none() | st.integers(0, 20_000)
    limits = Limits(
        draw(st.none() | st.integers(1, n)),
        draw(limit),
        draw(limit),
        draw(st.none() | st.integers(1, n)),
    )
    return asked, price, max_tokens, limits, costs, sizes


@settings(max_examples=150, deadline=None)
@given(purchases(), st.booleans())
def test_no_bill_passes_the_ceiling_or_undercuts_the_floor(purchase, ordered):
    asked, price, max_tokens, limits, costs, sizes = purchase
    said = told(asked, price=price, max_tokens=max_tokens, limits=limits, ordered=ordered)
    charged, paid = bought(asked, limits, costs, sizes)
    assert said.whole.floor <= charged <= said.whole.ceiling
    assert said.new.floor <= paid <= said.new.ceiling


def test_recordings_dearer_than_their_tokens_are_in_what_is_new():
    asked = calls(
        3, price=Price(input=0, output=0), settled=[Settled(10, 0, owed=True), None, None]
    )
    said = told(asked, price=Price(input=0, output=0), limits=Limits(queries=1, tokens=0))
    assert said.new.ceiling == said.whole.ceiling >= 10


def test_a_limit_in_dollars_bounds_both_ends():
    asked = calls(300)
    said = told(asked, limits=Limits(microusd=10_000))
    assert said.whole.ceiling == 10_000
    assert said.whole.floor == 10_000 - max(c.most_microusd for c in asked)


def test_the_hard_stop_bounds_what_is_new():
    assert told(calls(300), room_microusd=7000).new.ceiling == 7000
    assert told(calls(300), room_microusd=-5).new.ceiling == 0


def test_where_nothing_is_known_there_is_no_interval():
    said = told(calls(300), Known())
    assert (said.basis, said.whole.low, said.whole.expected, said.whole.high) == (
        "nothing", None, None, None,
    )  # fmt: skip


def trial(number):
    """Whether a random recipe's bill lay inside, and how wide that was for the bill."""
    rng = np.random.default_rng([11, number])
    shape, n = rng.uniform(0.2, 1.0), int(rng.integers(20, 100))
    most = 4000 if number % 3 else 150
    known = Known(
        "answers", usages(int(rng.integers(20, 200)), seed=number, shape=shape, most=most)
    )
    pool = prompts(int(rng.integers(n, 1000)), 10_000 + number)
    chosen = [pool[i] for i in rng.permutation(len(pool))]
    lengths = np.exp(shape * rng.normal(size=len(pool)) - shape**2 / 2) * 100
    answers = np.clip(lengths, 1, most).astype(int)
    sizes = [len(p[0].content) // 4 + a for p, a in zip(chosen, answers, strict=True)]
    costs = [
        int(np.ceil(2.5 * (len(p[0].content) // 4) + 10 * a))
        for p, a in zip(chosen, answers, strict=True)
    ]
    limits = [Limits(n), Limits(n, microusd=1000 * n + 41_000), Limits(n, tokens=150 * n + 4500)][
        number % 3
    ]
    asked = calls_for(chosen, PRICE, most)
    said = told(asked, known, max_tokens=most, limits=limits, ordered=bool(number % 2))
    bill, _ = bought(asked, limits, costs, sizes)
    return said.whole.low <= bill <= said.whole.high, (said.whole.high - said.whole.low) / bill


def test_the_interval_holds_the_bill_95_times_in_100():
    held, widths = zip(*map(trial, range(300)), strict=True)
    assert sum(held) >= binom.ppf(0.002, 300, 0.95)
    assert np.median(widths) < 0.5  # and not by being wide


def test_more_known_answers_make_it_narrower():
    asked = calls(100, max_tokens=2000)
    few, many = (told(asked, Known("answers", usages(n)), max_tokens=2000).whole for n in (25, 400))
    assert many.high - many.low < 0.6 * (few.high - few.low)


def test_the_same_plan_says_the_same():
    some = Known("answers", usages(30))
    assert told(calls(50), some) == told(calls(50), some)


def test_known_longer_answers_never_lift_it_above_the_ceiling():
    said = told(calls(300), Known("answers", [Usage(200, 50, 1500)] * 30), limits=Limits(20))
    assert said.whole.low <= said.whole.expected <= said.whole.high <= said.whole.ceiling


def test_a_limit_that_ends_the_buying_is_in_the_interval():
    some = Known("answers", usages(60))
    said = told(calls(300, max_tokens=800), some, max_tokens=800, limits=Limits(microusd=50_000))
    largest = max(c.most_microusd for c in calls(300, max_tokens=800))
    assert 50_000 - largest <= said.whole.low < said.whole.high <= 50_000
    assert said.n_expected < 60


def test_what_is_in_the_ledger_is_known_exactly_and_costs_nothing_new():
    paid = [Settled(1000 + i, 100) for i in range(10)]
    asked = calls(40, settled=[*paid, *[None] * 30])
    said = told(asked, Known("answers", usages(60, 20)), limits=Limits(30), ordered=True)
    assert (said.n_already, said.already_microusd) == (10, sum(s.microusd for s in paid))
    assert said.whole.ceiling - said.new.ceiling == said.already_microusd
    assert said.whole.low - said.new.low == pytest.approx(said.already_microusd, abs=1)
    all_paid = told(calls(10, settled=paid), Known("answers", usages(60)), ordered=True)
    assert (all_paid.new.ceiling, all_paid.whole.floor) == (0, all_paid.whole.ceiling)


def test_longer_prompts_in_the_choice_lift_the_bill():
    asked = sorted(calls(200, max_tokens=400), key=lambda c: -c.n_bytes)
    some, limits = Known("answers", usages(100, 20)), Limits(50)
    anyhow = told(asked, some, max_tokens=400, limits=limits)
    longest = told(asked, some, max_tokens=400, limits=limits, ordered=True)
    assert longest.whole.expected > 1.1 * anyhow.whole.expected


def test_refusals_and_cut_answers_widen_it():
    plain = usages(60, 30)
    asked = calls(100, max_tokens=60)
    free = told(asked, Known("answers", [*plain, *[Usage(100, 0, 0)] * 30]), max_tokens=60)
    assert free.whole.expected < 0.8 * told(asked, Known("answers", plain)).whole.expected
    cut = [Usage(u.n_prompt_bytes, u.n_prompt_tokens, 60, cut=True) for u in plain]
    raised = told(calls(100, max_tokens=600), Known("answers", cut), max_tokens=600).whole
    assert raised.low < 100 * 10 * 120 and raised.high > 100 * 10 * 500


def test_cached_and_reasoning_tokens_are_priced_as_their_kind():
    price = Price(input=10, output=10, cached=1)
    some = usages(60, 5)
    half = [Usage(u.n_prompt_bytes, u.n_prompt_tokens, 5, u.n_prompt_tokens // 2) for u in some]
    plain, cached = (told(calls(50), Known("answers", u), price=price).whole for u in (some, half))
    assert cached.expected < 0.75 * plain.expected


def test_a_limit_on_accepted_answers_spans_every_place_it_may_end_at():
    some = Known("answers", usages(60))
    said = told(calls(100), some, limits=Limits(100, accepted=20))
    full, least = told(calls(100), some), told(calls(100), some, limits=Limits(20))
    assert said.accepting and said.whole.expected is None
    assert said.whole.high == pytest.approx(full.whole.high, rel=0.05)
    assert said.whole.low == pytest.approx(least.whole.low, rel=0.1)


def test_a_guess_is_used_while_answers_are_few_and_named_as_one():
    guess = best_known([], usages(5), usages(50), (80, 120))
    said = told(calls(100, max_tokens=400), guess, max_tokens=400)
    assert said.basis == "guess"
    assert 100 * 10 * 75 < said.whole.low < said.whole.high < 100 * (10 * 135 + 300)
    assert best_known([], usages(20), [], (80, 120)).source == "answers"


def test_the_nearest_answers_are_used():
    alike, other = usages(60, 100), usages(60, 300, seed=3)
    assert best_known([], alike, other).answers == tuple(alike)
    assert best_known([], alike[:5], other).source == "other answers"
    assert best_known([], alike[:5], other[:5]).source == "nothing"
    assert len(best_known(usages(30, 100, seed=4), alike, []).answers) == 90
    harder = usages(30, 200, seed=4)
    assert best_known(harder, alike, []) == Known("own answers", harder)


def test_calls_beyond_counting_are_drawn_together():
    some = Known("answers", usages(200))
    few, many = (
        told(calls(n, max_tokens=1000), some, max_tokens=1000, ordered=True) for n in (3000, 12_000)
    )
    assert many.whole.expected == pytest.approx(4 * few.whole.expected, rel=0.03)
    assert (many.n_expected, many.n_queries) == (12_000, 12_000)


def test_without_a_price_no_bill_is_told():
    said = told(calls(3, price=None), price=None)
    assert (said.n_queries, said.new, said.whole) == (3, None, None)
