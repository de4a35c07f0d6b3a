"""How many steps a rationale has where nobody checks them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgekd.grading.reasoning_steps import count_steps, group_counts


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("", 0),
        ("Add them.", 1),
        ("First add 2.5 and 3. Then halve it. That is all", 3),
        ("1. Add them.\n2. Halve the sum.", 2),
        ("(a)\nAdd them\n\nHalve the sum", 2),
        ("Is it so? Yes it is!", 2),
        ("先求和。再减半。", 2),
    ],
)
def test_a_step_is_a_line_or_a_sentence(text, n):
    assert count_steps(text) == n


def test_few_counts_are_groups_of_their_own():
    assert group_counts({"a": 2, "b": 3, "c": 2}) == {"a": "2", "b": "3", "c": "2"}


@given(st.dictionaries(st.text(), st.integers(1, 60), min_size=1), st.integers(2, 6))
def test_groups_are_few_in_order_and_hold_every_question(counts, n_groups):
    names = group_counts(counts, n_groups)
    assert names.keys() == counts.keys()
    assert len(set(names.values())) <= n_groups
    for id, name in names.items():
        ends = [int(end) for end in name.split(" to ")]
        assert ends[0] <= counts[id] <= ends[-1]
