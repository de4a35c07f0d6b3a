"""The contract of every order of training rows, and of one in a file of the user."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgekd.errors import InputError
from bridgekd.lm.orders import ORDERS
from bridgekd.lm.tokenization import TokenizedSequence
from bridgekd.lm.update_schedule import UpdateSchedule, arrange_epochs
from bridgekd.variants import VariantRef

LONGEST_FIRST = """
import numpy as np

from bridgekd.lm.orders import Order

ORDER = Order(
    name="longest_first", title="Longest first", summary="Long targets first.", paper="",
    arrange=lambda lengths, rng, options: np.argsort(-lengths, kind="stable"),
)
"""


@pytest.fixture(scope="module", params=[*ORDERS.list_names(), "a file"])
def settings(request, tmp_path_factory):
    if request.param != "a file":
        return ORDERS.resolve(VariantRef(name=request.param))
    path = tmp_path_factory.mktemp("order") / "longest_first.py"
    path.write_text(LONGEST_FIRST)
    return ORDERS.resolve(VariantRef(file=str(path)))


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=20), seed=st.integers(0, 99))
def test_every_epoch_is_a_permutation_and_depends_on_the_seed_alone(settings, lengths, seed):
    n = len(lengths)
    epochs = arrange_epochs(np.array(lengths), 3 * n, seed, settings).reshape(3, n)
    assert (np.sort(epochs) == np.arange(n)).all()
    again = arrange_epochs(np.array(lengths), 2 * n + 1, seed, settings)
    assert again.tolist() == epochs.ravel()[: 2 * n + 1].tolist()


def test_it_has_a_title_and_refuses_an_unknown_option(settings):
    order = ORDERS.load(settings)
    assert order.title and order.summary.endswith(".")
    if settings.content is None:
        with pytest.raises(InputError, match="unknown option 'n_epchs'"):
            ORDERS.resolve(VariantRef.model_validate({"name": settings.name, "n_epchs": 2}))


def test_easy_first_sorts_by_tokens_with_a_loss_and_shuffles_equal_ones():
    """Row 0 is the longest, but its prompt has no loss; rows 1 and 3 are equal."""
    n_targets, n_prompts = [1, 2, 3, 2], [9, 1, 1, 1]
    rows = [
        TokenizedSequence((7,) * (p + n), (0.0,) * p + (1.0,) * n, p)
        for n, p in zip(n_targets, n_prompts, strict=True)
    ]
    easy_first = ORDERS.resolve(VariantRef(name="easy_first"))
    epochs = UpdateSchedule(rows, batch_size=4, n_updates=9, seed=0, order=easy_first).updates
    assert {tuple(epoch) for epoch in epochs.tolist()} == {(0, 1, 3, 2), (0, 3, 1, 2)}
