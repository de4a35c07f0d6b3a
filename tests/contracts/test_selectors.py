"""The contract of every selector of rationales, and of one in a file of the user."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgekd.errors import InputError
from bridgekd.rationales import SELECTORS, Candidates, SentenceScore
from bridgekd.variants import VariantRef

LAST = """
from bridgekd.rationales import Selector
from bridgekd.variants import NoOptions

SELECTOR = Selector(
    name="last", title="Last", summary="Keeps the last rationale.", paper="", options=NoOptions,
    select=lambda candidates, options: [len(candidates.texts) - 1],
)
"""
PROBABILITY = st.floats(0, 1)
WORDS = st.sampled_from(["Ann", "has", "two", "red", "pens", "."])
RATIONALE = st.tuples(
    st.lists(WORDS, min_size=1, max_size=9).map(" ".join),
    st.integers(1, 400),
    PROBABILITY,
    st.lists(st.builds(SentenceScore, PROBABILITY, PROBABILITY), min_size=1, max_size=5),
)


def make_candidates(rationales):
    return Candidates(*(list(column) for column in zip(*rationales, strict=True)))


@pytest.fixture(scope="module", params=[*SELECTORS.list_names(), "a file"])
def settings(request, tmp_path_factory):
    if request.param != "a file":
        return SELECTORS.resolve(VariantRef(name=request.param))
    path = tmp_path_factory.mktemp("selector") / "last.py"
    path.write_text(LAST)
    return SELECTORS.resolve(VariantRef(file=str(path)))


@given(rationales=st.lists(RATIONALE, min_size=1, max_size=6))
def test_it_keeps_different_known_rationales_and_at_least_one(settings, rationales):
    selector, options = SELECTORS.load(settings), SELECTORS.parse_options(settings)
    candidates = make_candidates(rationales)
    kept = selector.select(candidates, options)
    assert kept and len(kept) == len(set(kept)) and set(kept) <= set(range(len(rationales)))
    assert kept == selector.select(candidates, options)
    n_kept = getattr(options, "n_kept", len(kept))
    assert len(kept) == min(n_kept, len(rationales))


def test_unknown_option_is_refused(settings):
    if settings.content is not None:
        return
    ref = VariantRef.model_validate({"name": settings.name, "n_kpt": 2})
    with pytest.raises(InputError, match="unknown option 'n_kpt'"):
        SELECTORS.resolve(ref)


def test_n_kept_counts_from_the_best():
    candidates = Candidates(["a", "b", "c"], [30, 10, 20], [0.2, 0.9, 0.5])
    for name, expected in {"shortest": [1, 2], "longest": [0, 2], "confident": [1, 2]}.items():
        settings = SELECTORS.resolve(VariantRef.model_validate({"name": name, "n_kept": 2}))
        selector, options = SELECTORS.load(settings), SELECTORS.parse_options(settings)
        assert selector.select(candidates, options) == expected


def test_assistant_like_counts_sentences_and_not_their_share():
    ours, theirs, both = (SentenceScore(*p) for p in ((0.6, 0.3), (0.3, 0.6), (0.5, 0.45)))
    candidates = Candidates(
        ["a", "b"], [1, 1], sentences=[[ours], [ours, ours, theirs, theirs, theirs, both]]
    )
    settings = SELECTORS.resolve(VariantRef(name="assistant_like"))
    selector, options = SELECTORS.load(settings), SELECTORS.parse_options(settings)
    assert selector.select(candidates, options) == [1]


def test_distinct_keeps_the_least_similar():
    texts = ["Ann has two red pens .", "Ann has two red pens and", "She took five out of nine ."]
    settings = SELECTORS.resolve(VariantRef(name="distinct"))
    selector, options = SELECTORS.load(settings), SELECTORS.parse_options(settings)
    assert selector.select(Candidates(texts, [1, 1, 1]), options) == [0, 2]
