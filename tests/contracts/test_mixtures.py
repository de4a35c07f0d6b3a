"""The contract of every domain mixture, and of one in a file of the user."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgekd.errors import InputError
from bridgekd.selection.mixture import GroupEvidence, compute_shares
from bridgekd.selection.mixtures import MIXTURES
from bridgekd.variants import VariantRef

ROOT_OF_SIZE = """
import numpy as np

from bridgekd.selection.mixture import Mixture
from bridgekd.variants import NoOptions

MIXTURE = Mixture(
    name="root_of_size",
    title="Square root of the size",
    summary="Small groups get more than their share.",
    options=NoOptions,
    compute_weights=lambda evidence, options: np.sqrt(evidence.sizes),
)
"""
COLUMNS = ("pass_rates", "losses", "reference_losses")


@pytest.fixture(scope="module", params=[*MIXTURES.list_names(), "a file"])
def ref(request, tmp_path_factory):
    if request.param != "a file":
        return VariantRef(name=request.param)
    path = tmp_path_factory.mktemp("mixture") / "root_of_size.py"
    path.write_text(ROOT_OF_SIZE)
    return VariantRef(file=str(path))


@pytest.fixture(scope="module")
def mixture(ref):
    return MIXTURES.load(MIXTURES.resolve(ref))


def make_evidence(groups, seed, progress=0.5):
    """Return evidence with every column."""
    rng = np.random.default_rng(seed)
    n = len(groups)
    rates, losses, reference = rng.integers(0, 5, n) / 4, rng.gamma(2, size=n), rng.gamma(1, size=n)
    return GroupEvidence(np.array(groups), progress, rates, losses, reference)


def test_it_has_a_title_and_one_sentence(mixture):
    assert mixture.title and mixture.summary.endswith(".")
    assert "\n" not in mixture.summary


def test_it_refuses_an_option_that_it_does_not_have(ref, mixture):
    known = list(mixture.options.model_fields)
    hint = f"Did you mean '{known[0]}'" if known else "Known: none"
    key = f"{known[0]}s" if known else "alphas"
    with pytest.raises(InputError, match=f"unknown option '{key}'. {hint}"):
        MIXTURES.resolve(ref.model_copy(update={"options": {key: 3}}))


@given(
    groups=st.lists(st.integers(0, 4), min_size=1, max_size=30),
    seed=st.integers(0, 99),
    progress=st.floats(0, 0.99),
)
def test_shares_sum_to_1_and_do_not_depend_on_the_order(mixture, groups, seed, progress):
    evidence, options = make_evidence(groups, seed, progress), mixture.options()
    shares = compute_shares(mixture, evidence, options)
    assert shares.shape == evidence.sizes.shape
    assert (shares >= 0).all() and shares.sum() == pytest.approx(1)
    assert (shares[evidence.sizes == 0] == 0).all()
    columns = (getattr(evidence, name)[::-1] for name in COLUMNS)
    turned = GroupEvidence(evidence.groups[::-1], progress, *columns)
    assert compute_shares(mixture, turned, options) == pytest.approx(shares)


def test_it_reads_only_what_it_declares(mixture):
    full, options = make_evidence([0, 0, 1, 1, 1, 2] * 5, 1), mixture.options()
    needed = {"pass_rates": bool(mixture.count_samples(options))}
    needed |= dict.fromkeys(COLUMNS[1:], mixture.needs_losses)
    columns = {name: getattr(full, name) for name in COLUMNS if needed[name]}
    part = GroupEvidence(full.groups, full.progress, **columns)
    shares = compute_shares(mixture, part, options)
    assert shares.tolist() == compute_shares(mixture, full, options).tolist()


def test_equal_groups_get_equal_shares(mixture):
    one = make_evidence([0] * 8, 2)
    columns = {name: np.tile(getattr(one, name), 3) for name in COLUMNS}
    evidence = GroupEvidence(np.repeat([0, 1, 2], 8), 0.4, **columns)
    shares = compute_shares(mixture, evidence, mixture.options())
    assert shares == pytest.approx([1 / 3] * 3)
