"""Several purchases together: the guaranteed ends hold whatever the purchases share."""

from hypothesis import given, settings
from hypothesis import strategies as st

from bridgekd.cost.bounds import CostBounds, plan_requests
from bridgekd.cost.budget import Limits
from bridgekd.cost.forecast import CostForecast, forecast_cost
from bridgekd.cost.joint_forecast import forecast_total
from bridgekd.recipe import Price
from bridgekd.records import Message

PRICE = Price(input=1, output=10)


def forecast(n, *ends):
    return CostForecast(n_queries=n, unpaid=CostBounds(*ends), source="answers")


def test_group_costs_what_its_largest_purchase_costs():
    small, large = forecast(5, 2, 40, 5, 9, 12), forecast(9, 5, 50, 10, 20, 30)
    assert forecast_total([[small, large]]).unpaid == large.unpaid


def test_ends_of_one_group_may_come_from_different_purchases():
    total = forecast_total([[forecast(5, 9, 40, 12, 15, 30), forecast(9, 5, 50, 10, 20, 25)]])
    assert total.unpaid == CostBounds(9, 50, 12, 20, 30)


def test_two_groups_may_share_everything_or_nothing():
    first, second = forecast(5, 10, 50, 20, 25, 30), forecast(5, 12, 40, 15, 18, 22)
    total = forecast_total([[first], [second]])
    assert total.unpaid == CostBounds(12, 90, 20, None, 52)
    assert total.n_queries == 10


def test_no_more_than_every_question_once_is_paid():
    one, every = forecast(5, 10, 50, 20, 25, 30), forecast(7, 15, 60, 30, 35, 40)
    total = forecast_total([[one]] * 3, everything=every, room_microusd=55)
    assert (total.unpaid.maximum, total.unpaid.ci_high, total.n_queries) == (55, 40, 7)


def test_hard_limit_caps_every_end():
    total = forecast_total([[forecast(5, 10, 50, 20, 25, 30)]], room_microusd=15)
    assert total.unpaid == CostBounds(10, 15, 15, 15, 15)


def test_one_purchase_without_interval_leaves_guaranteed_ends():
    total = forecast_total([[forecast(5, 10, 50, 20, 25, 30)], [forecast(5, 12, 40)]])
    assert total.unpaid == CostBounds(12, 90)


def test_total_without_price_is_unknown():
    assert forecast_total([[CostForecast(n_queries=3)]]).unpaid is None


@given(st.lists(st.sets(st.integers(0, 29), min_size=1), min_size=1, max_size=5))
@settings(deadline=None)
def test_cost_is_within_guaranteed_ends_however_selections_overlap(selections):
    requests = plan_requests(
        [(Message("user", f"question {i:04d}"),) for i in range(30)], PRICE, 50
    )
    options = {"price": PRICE, "max_tokens": 50}
    groups = [[forecast_cost(requests, limits=Limits(len(s)), **options)] for s in selections]
    everything = forecast_cost(requests, ordered=True, **options)
    unpaid = forecast_total(groups, everything=everything).unpaid
    n = len(set().union(*selections))
    assert unpaid.minimum <= n * requests[0].min_microusd
    assert n * requests[0].max_microusd <= unpaid.maximum <= 30 * requests[0].max_microusd
