"""The cost forecast: guaranteed ends always hold, and the interval holds 95 times in 100."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from bridgekd.cost.bounds import KnownCost, plan_requests
from bridgekd.cost.budget import BudgetTracker, BudgetUse, Limits
from bridgekd.cost.forecast import forecast_cost
from bridgekd.cost.token_lengths import KnownUsage, LengthEvidence, choose_evidence
from bridgekd.recipe import Price
from bridgekd.records import Message

PRICE = Price(input=2.5, output=10.0)


def prompts(n, seed=0):
    rng = np.random.default_rng(seed)
    return [(Message("user", "x" * int(k)),) for k in rng.integers(50, 400, size=n)]


def build_requests(n, *, seed=0, max_tokens=64, price=PRICE, **known):
    return plan_requests(prompts(n, seed), price, max_tokens, **known)


def usages(n, mean=100, *, seed=0, log_sd=0.5, longest=10_000):
    """Known answers of a teacher with four bytes per token."""
    rng = np.random.default_rng([7, seed])
    lengths = np.exp(log_sd * rng.normal(size=n) - log_sd**2 / 2) * mean
    return [
        KnownUsage(len(p[0].content), len(p[0].content) // 4, k, is_truncated=k == longest)
        for p, k in zip(prompts(n, seed + 1), lengths.clip(1, longest).astype(int), strict=True)
    ]


def forecast(requests, answers=(), *, max_tokens=64, price=PRICE, **options):
    evidence = LengthEvidence("answers" if answers else "nothing", answers)
    return forecast_cost(
        requests, **{"price": price, "max_tokens": max_tokens, "evidence": evidence} | options
    )


def charge(requests, limits, costs, n_tokens):
    """What the real rule of admission charges, and how much of it is new money."""
    account, paid = BudgetTracker(limits), 0
    for request, cost, size in zip(requests, costs, n_tokens, strict=True):
        reserve = (request.max_microusd, request.max_tokens)
        if request.known_cost:
            cost, size = request.known_cost.microusd, request.known_cost.n_tokens
            reserve = (0, 0) if request.known_cost.is_unpaid else reserve
        upper_bound = BudgetUse(1, max(reserve[0], cost), max(reserve[1], size), 1)
        if account.find_blocking_limit(upper_bound):
            break
        account.reserve(upper_bound)
        is_accepted = int(limits.accepted is not None and cost % 2)
        account.settle(upper_bound, BudgetUse(1, cost, size, is_accepted))
        paid += 0 if request.is_free else cost
    return account.charged.microusd, paid


@st.composite
def purchases(draw):
    """Requests with some known answers and some repeats, any limits, any honest costs."""
    n = draw(st.integers(1, 30))
    price = Price(
        input=draw(st.floats(0, 10)),
        output=draw(st.floats(0, 30)),
        cached_input=draw(st.none() | st.floats(0, 10)),
    )
    max_tokens = draw(st.integers(1, 300))
    known = st.none() | st.builds(
        KnownCost, st.integers(0, 5000), st.integers(0, 500), st.booleans()
    )
    settled = draw(st.lists(known, min_size=n, max_size=n))
    repeats = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    requests = build_requests(
        n, price=price, max_tokens=max_tokens, settled=settled, repeats=repeats
    )
    fraction = st.floats(0, 1)
    costs, sizes = [], []
    for r in requests:
        size = r.min_tokens + draw(fraction) * (r.max_tokens - r.min_tokens)
        sizes.append(int(size))
        rates = [
            rate for rate in (price.input, price.output, price.cached_input) if rate is not None
        ]
        low = max(r.min_microusd, int(np.ceil(int(size) * min(rates))))
        high = min(r.max_microusd, int(int(size) * max(rates)))
        costs.append(max(low, int(low + draw(fraction) * (high - low))))
    limit, count = st.none() | st.integers(0, 20_000), st.none() | st.integers(1, n)
    limits = Limits(draw(count), draw(limit), draw(limit), draw(count))
    return requests, price, max_tokens, limits, costs, sizes


@settings(max_examples=150, deadline=None)
@given(purchases(), st.booleans(), st.booleans())
def test_no_cost_is_outside_guaranteed_ends(purchase, ordered, has_answers):
    requests, price, max_tokens, limits, costs, sizes = purchase
    options = {"price": price, "max_tokens": max_tokens, "limits": limits, "ordered": ordered}
    estimate = forecast(requests, usages(20) if has_answers else (), **options)
    charged, paid = charge(requests, limits, costs, sizes)
    for cost, ends in ((charged, estimate.total), (paid, estimate.unpaid)):
        assert ends.minimum <= cost <= ends.maximum
        assert not has_answers or ends.minimum <= ends.ci_low <= ends.ci_high <= ends.maximum


def test_recordings_that_cost_more_than_their_tokens_are_unpaid():
    free = Price(input=0, output=0)
    requests = build_requests(3, price=free, settled=[KnownCost(10, 0, is_unpaid=True), None, None])
    estimate = forecast(requests, price=free, limits=Limits(queries=1, tokens=0))
    assert estimate.unpaid.maximum == estimate.total.maximum >= 10


def test_limit_in_dollars_bounds_both_ends():
    requests = build_requests(300)
    estimate = forecast(requests, limits=Limits(microusd=10_000))
    assert estimate.total.maximum == 10_000
    assert estimate.total.minimum == 10_000 - max(r.max_microusd for r in requests)


def test_hard_limit_bounds_unpaid_cost():
    assert forecast(build_requests(300), room_microusd=7000).unpaid.maximum == 7000
    assert forecast(build_requests(300), room_microusd=-5).unpaid.maximum == 0


def test_nothing_known_gives_no_interval():
    estimate = forecast(build_requests(300))
    ends = (estimate.total.ci_low, estimate.total.expected, estimate.total.ci_high)
    assert (estimate.source, ends) == ("nothing", (None, None, None))


def test_only_refused_answers_give_no_interval():
    assert forecast(build_requests(300), [KnownUsage(100, 0, 0)] * 20).total.ci_low is None


def simulate_trial(number):
    """Whether the interval of a random recipe has its cost, and its width in units of the cost."""
    rng = np.random.default_rng([11, number])
    log_sd, n = rng.uniform(0.2, 1.0), int(rng.integers(20, 100))
    longest = 4000 if number % 3 else 150
    answers = usages(int(rng.integers(20, 200)), seed=number, log_sd=log_sd, longest=longest)
    pool = prompts(int(rng.integers(n, 1000)), 10_000 + number)
    selected = [pool[i] for i in rng.permutation(len(pool))]
    lengths = np.exp(log_sd * rng.normal(size=len(pool)) - log_sd**2 / 2) * 100
    n_completion = lengths.clip(1, longest).astype(int)
    n_prompt = np.array([len(p[0].content) // 4 for p in selected])
    costs = np.ceil(2.5 * n_prompt + 10 * n_completion).astype(int).tolist()
    limits = (Limits(n), Limits(n, microusd=1000 * n + 41_000), Limits(n, tokens=150 * n + 4500))
    options = {"limits": limits[number % 3], "ordered": bool(number % 2)}
    requests = plan_requests(selected, PRICE, longest)
    total = forecast(requests, answers, max_tokens=longest, **options).total
    cost, _ = charge(requests, options["limits"], costs, (n_prompt + n_completion).tolist())
    return total.ci_low <= cost <= total.ci_high, (total.ci_high - total.ci_low) / cost


def test_interval_has_cost_95_times_in_100():
    is_inside, widths = zip(*map(simulate_trial, range(300)), strict=True)
    assert sum(is_inside) >= binom.ppf(0.002, 300, 0.95)
    assert np.median(widths) < 0.45  # and not because it is wide


def test_more_known_answers_make_interval_narrower():
    requests = build_requests(100, max_tokens=2000)
    few, many = (forecast(requests, usages(n), max_tokens=2000).total for n in (25, 400))
    assert many.ci_high - many.ci_low < 0.6 * (few.ci_high - few.ci_low)


def test_same_arguments_give_same_forecast():
    assert forecast(build_requests(50), usages(30)) == forecast(build_requests(50), usages(30))


def test_longer_known_answers_never_lift_interval_above_maximum():
    total = forecast(build_requests(300), [KnownUsage(200, 50, 1500)] * 30, limits=Limits(20)).total
    assert total.ci_low <= total.expected <= total.ci_high <= total.maximum


def test_limit_that_ends_purchase_is_in_interval():
    requests = build_requests(300, max_tokens=800)
    estimate = forecast(requests, usages(60), max_tokens=800, limits=Limits(microusd=50_000))
    largest = max(r.max_microusd for r in requests)
    assert 50_000 - largest <= estimate.total.ci_low < estimate.total.ci_high <= 50_000
    assert estimate.n_expected < 60


def test_answers_in_ledger_are_exact_and_cost_nothing_new():
    paid = [KnownCost(1000 + i, 100) for i in range(10)]
    requests = build_requests(40, settled=[*paid, *[None] * 30])
    estimate = forecast(requests, usages(60, 20), limits=Limits(30), ordered=True)
    assert (estimate.n_reused, estimate.reused_microusd) == (10, sum(s.microusd for s in paid))
    assert estimate.total.maximum - estimate.unpaid.maximum == estimate.reused_microusd
    assert estimate.total.ci_low - estimate.unpaid.ci_low == pytest.approx(
        estimate.reused_microusd, abs=1
    )
    all_paid = forecast(build_requests(10, settled=paid), usages(60), ordered=True)
    assert (all_paid.unpaid.maximum, all_paid.total.minimum) == (0, all_paid.total.maximum)


def test_selection_of_longer_prompts_costs_more():
    requests = sorted(build_requests(200, max_tokens=400), key=lambda r: -r.n_bytes)
    options = {"max_tokens": 400, "limits": Limits(50)}
    any_50 = forecast(requests, usages(100, 20), **options).total
    longest_50 = forecast(requests, usages(100, 20), ordered=True, **options).total
    assert longest_50.expected > 1.1 * any_50.expected


def test_completions_that_grow_with_prompts_are_extrapolated():
    answers = [KnownUsage(k, k // 4, k // 2) for k in range(100, 300, 5)]
    requests = plan_requests([(Message("user", "x" * 600),)] * 50, PRICE, 1000)
    total = forecast(requests, answers, max_tokens=1000).total
    assert total.ci_low > 0.85 * 50 * (150 * 2.5 + 300 * 10) and total.ci_high < 50 * (375 + 4500)


def test_refused_answers_lower_cost():
    requests, plain = build_requests(100, max_tokens=60), usages(60, 30)
    half_refused = [*plain, *[KnownUsage(100, 0, 0)] * 60]
    half, full = (forecast(requests, a, max_tokens=60).total for a in (half_refused, plain))
    assert 0.4 * full.expected < half.expected < 0.6 * full.expected


def test_truncated_answers_may_be_longer_under_higher_limit():
    plain = usages(60, 30)
    cut = [KnownUsage(u.n_prompt_bytes, u.n_prompt_tokens, 60, is_truncated=True) for u in plain]
    total = forecast(build_requests(100, max_tokens=600), cut, max_tokens=600).total
    assert total.ci_low < 100 * 10 * 120 and total.ci_high > 100 * 10 * 500


def test_cached_tokens_have_their_own_price():
    price = Price(input=10, output=10, cached_input=1)
    plain = usages(60, 5)
    half = [
        KnownUsage(u.n_prompt_bytes, u.n_prompt_tokens, 5, u.n_prompt_tokens // 2) for u in plain
    ]
    full, cached = (forecast(build_requests(50), u, price=price).total for u in (plain, half))
    assert cached.expected < 0.75 * full.expected


def test_reasoning_tokens_have_their_own_price():
    price = Price(input=0, output=10, reasoning=2)
    answers = [KnownUsage(200, 50, 40, n_reasoning_tokens=20)] * 30
    total = forecast(build_requests(50), answers, price=price).total
    assert total.expected == pytest.approx(50 * 40 * 6, rel=0.01)


def test_limit_on_accepted_answers_covers_every_place_it_may_end():
    requests = build_requests(100)
    estimate = forecast(requests, usages(60), limits=Limits(100, accepted=20))
    full, first = forecast(requests, usages(60)), forecast(requests, usages(60), limits=Limits(20))
    assert estimate.counts_accepted and estimate.total.expected is None
    assert estimate.total.ci_high == pytest.approx(full.total.ci_high, rel=0.05)
    assert estimate.total.ci_low == pytest.approx(first.total.ci_low, rel=0.1)


def test_guess_is_used_while_answers_are_few_and_is_named():
    guess = choose_evidence([], usages(5), usages(50), (80, 120))
    requests = build_requests(100, max_tokens=400)
    estimate = forecast_cost(requests, price=PRICE, max_tokens=400, evidence=guess)
    assert estimate.source == "guess"
    assert 100 * 10 * 75 < estimate.total.ci_low < estimate.total.ci_high < 100 * (10 * 135 + 300)
    assert choose_evidence([], usages(20), [], (80, 120)).source == "answers"


def test_closest_answers_are_used():
    own, similar, other = usages(30, 200, seed=4), usages(60, 100), usages(60, 300, seed=3)
    assert choose_evidence(own, similar, other) == LengthEvidence("own answers", own)
    assert choose_evidence(own[:5], similar, other) == LengthEvidence(
        "answers", (*own[:5], *similar)
    )
    assert choose_evidence([], similar[:5], other).source == "other answers"
    assert choose_evidence([], similar[:5], other[:5]).source == "nothing"


def test_requests_beyond_column_limit_are_drawn_together():
    few, many = (
        forecast(build_requests(n, max_tokens=1000), usages(200), max_tokens=1000, ordered=True)
        for n in (3000, 12_000)
    )
    assert many.total.expected == pytest.approx(4 * few.total.expected, rel=0.03)
    assert (many.n_expected, many.n_queries) == (12_000, 12_000)


def test_limit_that_admits_few_of_many_requests_is_found_exactly():
    options = {"max_tokens": 1000, "limits": Limits(microusd=200_000)}
    few, many = (
        forecast(build_requests(n, max_tokens=1000), usages(200), **options) for n in (2000, 40_000)
    )
    assert many.n_expected == pytest.approx(few.n_expected, abs=8)
    assert many.total.ci_low == pytest.approx(few.total.ci_low, rel=0.02)


def test_cost_without_price_is_unknown():
    estimate = forecast(build_requests(3, price=None), price=None)
    assert (estimate.n_queries, estimate.unpaid, estimate.total) == (3, None, None)
