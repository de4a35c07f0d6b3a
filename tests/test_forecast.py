"""The bill beforehand: sure bounds where nothing is known, an interval where something is."""

import numpy as np

from bridgekd.config import Price
from bridgekd.core.admission import Limits
from bridgekd.core.costs import reserve_microusd
from bridgekd.core.forecast import Usage, forecast
from bridgekd.records import Message

PRICE = Price(input=2.5, output=10.0)


def prompts(n, seed=0):
    rng = np.random.default_rng(seed)
    return [(Message("user", "x" * int(k)),) for k in rng.integers(50, 400, size=n)]


def bill_of(chosen, answer_tokens):
    """What a server with four bytes a token bills, in micro-dollars."""
    return sum(
        int(np.ceil(2.5 * len(p[0].content) / 4 + 10 * t))
        for p, t in zip(chosen, answer_tokens, strict=True)
    )


def test_without_known_answers_the_bounds_hold_any_choice():
    asked = prompts(300)
    told = forecast(asked, n_queries=20, price=PRICE, max_tokens=64)
    by_size = sorted(asked, key=lambda p: len(p[0].content))
    assert told.low_microusd <= bill_of(by_size[:20], [1] * 20)
    assert told.high_microusd >= bill_of(by_size[-20:], [64] * 20)


def test_a_limit_in_dollars_bounds_both_ends():
    asked = prompts(300)
    largest = max(reserve_microusd(PRICE, p, 64) for p in asked)
    told = forecast(
        asked, n_queries=300, price=PRICE, max_tokens=64, limits=Limits(microusd=100_000)
    )
    assert told.high_microusd == 100_000
    assert told.low_microusd <= 100_000 - largest


def test_a_limit_in_tokens_bounds_queries_and_bill():
    told = forecast(
        prompts(300), n_queries=300, price=PRICE, max_tokens=64, limits=Limits(tokens=500)
    )
    assert told.n_queries < 300
    assert told.high_microusd <= 500 * 10 + told.n_queries


def test_known_longer_answers_never_lift_the_interval_above_the_most():
    known = [Usage(200, 50, 1500)] * 30
    told = forecast(prompts(300), n_queries=20, price=PRICE, max_tokens=64, known=known)
    most = sum(sorted(reserve_microusd(PRICE, p, 64) for p in prompts(300))[-20:])
    assert told.low_microusd <= told.high_microusd <= most


def test_the_interval_holds_the_bill_about_95_times_in_100():
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(400):
        asked = prompts(500, seed=trial)
        known = [
            Usage(len(p[0].content), len(p[0].content) // 4, int(rng.gamma(4, 20)) + 1)
            for p in prompts(60, seed=10_000 + trial)
        ]
        told = forecast(asked, n_queries=50, price=PRICE, max_tokens=2000, known=known)
        chosen = [asked[i] for i in rng.permutation(500)[:50]]
        bill = bill_of(chosen, rng.gamma(4, 20, size=50).astype(int) + 1)
        held += told.low_microusd <= bill <= told.high_microusd
    assert 0.92 <= held / 400 <= 0.99


def test_without_a_price_no_bill_is_told():
    told = forecast(prompts(3), n_queries=3, price=None, max_tokens=64)
    assert (told.n_queries, told.low_microusd, told.high_microusd) == (3, None, None)
