"""Several purchases together: what is sure stays sure, whatever they share."""

from hypothesis import given, settings
from hypothesis import strategies as st

from bridgekd.config import Price
from bridgekd.core.admission import Limits
from bridgekd.core.bounds import Bounds, calls_for
from bridgekd.core.forecast import Forecast, forecast
from bridgekd.core.joint import together
from bridgekd.records import Message

PRICE = Price(input=1, output=10)


def told(n, floor, ceiling, low=None, expected=None, high=None):
    return Forecast(n_queries=n, new=Bounds(floor, ceiling, low, expected, high), basis="answers")


def test_what_is_known_to_be_asked_adds_up_and_has_a_middle():
    union = told(10, 5, 50, 10, 20, 30)
    bill = together([told(8, 4, 40, 8, 16, 24), told(4, 2, 20, 4, 8, 12)], [union], [])
    assert bill.new == union.new


def test_choices_that_are_still_open_may_overlap_wholly_or_not_at_all():
    one, other = told(5, 10, 50, 20, 25, 30), told(5, 12, 40, 15, 18, 22)
    bill = together([one, other], [], [one, other])
    assert bill.new == Bounds(12, 90, 20, None, 52)
    assert bill.n_queries == 10


def test_no_more_than_every_question_once_is_ever_paid():
    one = told(5, 10, 50, 20, 25, 30)
    every = told(7, 15, 60, 30, 35, 40)
    bill = together([one] * 3, [], [one] * 3, everything=every, room_microusd=55)
    assert (bill.new.ceiling, bill.new.high, bill.n_queries) == (55, 40, 7)


def test_without_a_price_there_is_no_bill():
    assert together([Forecast(n_queries=3)], [], [Forecast(n_queries=3)]).new is None


@given(st.lists(st.sets(st.integers(0, 29), min_size=1), min_size=1, max_size=5))
@settings(deadline=None)
def test_however_choices_overlap_the_bill_is_within_the_sure_ends(chosen):
    calls = calls_for([(Message("user", f"question {i:04d}"),) for i in range(30)], PRICE, 50)
    how = {"price": PRICE, "max_tokens": 50}
    alone = [forecast(calls, limits=Limits(queries=len(s)), **how) for s in chosen]
    bill = together(alone, [], alone, everything=forecast(calls, ordered=True, **how)).new
    n = len(set().union(*chosen))
    assert bill.floor <= n * calls[0].least_microusd
    assert n * calls[0].most_microusd <= bill.ceiling <= 30 * calls[0].most_microusd
