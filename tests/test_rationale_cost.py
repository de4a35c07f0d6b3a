"""The forecast of what a kept rationale costs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgekd.cost.rationale_cost import forecast_rationale_costs


def test_wrong_answers_make_a_stratum_expensive():
    """15 answers of equal price in each stratum: 14 and 1 are kept, 15.5 of 31 on average."""
    strata, is_kept = np.repeat([0, 1, 2], 20), np.zeros(30, dtype=bool)
    is_kept[:14] = is_kept[15] = True
    bought = np.concatenate([np.arange(15), np.arange(20, 35)])
    costs = forecast_rationale_costs(strata, bought, np.full(30, 7), is_kept)
    expected = [0.5 / (16.5 / 20), 0.5 / (3.5 / 20), 1]  # nothing is known about the last one
    assert costs[[0, 20, 40]] == pytest.approx(expected)


def test_nothing_bought_or_a_free_teacher_makes_all_questions_equal():
    strata, bought = np.array([0, 1, 1]), np.array([0, 2])
    nothing = np.array([], dtype=np.int64)
    assert forecast_rationale_costs(strata, nothing, nothing, nothing).tolist() == [1, 1, 1]
    free = forecast_rationale_costs(strata, bought, np.zeros(2), np.array([True, True]))
    assert free == pytest.approx([free[0]] * 3)


@given(
    rows=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 10**9), st.booleans()), max_size=40)
)
def test_forecasts_are_finite_and_above_0(rows):
    columns = [np.array([row[i] for row in rows]) for i in range(3)]
    strata = np.arange(10) % 3
    costs = forecast_rationale_costs(
        strata, columns[0].astype(int), columns[1].astype(float), columns[2].astype(bool)
    )
    assert np.isfinite(costs).all() and (costs > 0).all()
