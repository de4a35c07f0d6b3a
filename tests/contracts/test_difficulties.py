"""The contract of every measure of difficulty, and of one in a file of the user."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgekd import lm
from bridgekd.errors import InputError
from bridgekd.records import Example
from bridgekd.selection.difficulty import MEASURES
from bridgekd.selection.measure import DifficultyMeasure
from bridgekd.variants import NoOptions, VariantRef
from tiny_models import write_tiny

LEAST_CONFIDENT = """
import numpy as np
from scipy.special import softmax

from bridgekd.selection.measure import DifficultyMeasure
from bridgekd.variants import NoOptions


def least_confident(log_likelihoods):
    return float(1 - softmax(log_likelihoods).max())


MEASURE = DifficultyMeasure(
    name="least_confident",
    title="Least confident",
    summary="One minus the probability of the most likely choice.",
    paper="Lewis and Gale 1994",
    options=NoOptions,
    score_choices=least_confident,
    score_tokens=lambda logits: 1 - logits.softmax(-1).amax(-1),
)
"""
CHOICES = st.lists(st.floats(-50, 0), min_size=1, max_size=8).map(np.array)
ANSWERS = st.lists(st.sampled_from(["", "a", "b", "c", "d"]), max_size=12)
QUESTIONS = [
    Example("a", "Who holds the red box ?", "Bob", ("Ann", "Bob", "the quick brown fox")),
    Example("b", "Is it ?", "yes", ("yes",)),
    Example("c", "2 + 2 ?", "4"),
]


@pytest.fixture(scope="module", params=[*MEASURES.list_names(), "a file"])
def ref(request, tmp_path_factory):
    if request.param != "a file":
        return VariantRef(name=request.param)
    path = tmp_path_factory.mktemp("measure") / "least_confident.py"
    path.write_text(LEAST_CONFIDENT)
    return VariantRef(file=str(path))


@pytest.fixture(scope="module")
def measure(ref):
    return MEASURES.load(MEASURES.resolve(ref))


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    return lm.load_model(write_tiny(tmp_path_factory.mktemp("model")), device="cpu")


def test_it_has_a_title_and_one_sentence(measure):
    assert measure.title and measure.summary.endswith(".")
    assert "\n" not in measure.summary


def test_it_refuses_an_option_that_it_does_not_have(ref, measure):
    known = list(measure.options.model_fields)
    hint = f"Did you mean '{known[0]}'" if known else "Known: none"
    key = f"{known[0]}s" if known else "n_samples"
    with pytest.raises(InputError, match=f"unknown option '{key}'. {hint}"):
        MEASURES.resolve(ref.model_copy(update={"options": {key: 3}}))


def test_it_counts_the_answers_that_it_scores(measure):
    n_answers = measure.count_answers(measure.options())
    reads_texts = measure.score_answers is not None or measure.score_pass_rate is not None
    assert (n_answers >= 2) == reads_texts


@given(log_likelihoods=CHOICES)
def test_certainty_over_choices_is_finite_and_ignores_their_order(measure, log_likelihoods):
    if measure.score_choices is not None:
        score = measure.score_choices(log_likelihoods)
        assert np.isfinite(score)
        assert measure.score_choices(log_likelihoods[::-1]) == pytest.approx(score, abs=1e-12)


@given(answers=ANSWERS)
def test_different_answers_are_harder_than_equal_ones_in_any_order(measure, answers):
    if measure.score_answers is not None:
        score, equal = measure.score_answers(answers), measure.score_answers(["a"] * len(answers))
        assert np.isfinite(score) and score >= equal
        assert measure.score_answers(answers[::-1]) == pytest.approx(score)
        assert (score > equal) == (len(set(answers)) > 1)


@given(p=st.floats(0, 1))
def test_the_difficulty_of_a_pass_rate_is_in_0_to_1_and_0_if_all_samples_are_right(measure, p):
    if measure.score_pass_rate is not None:
        assert 0 <= measure.score_pass_rate(p) <= 1
        assert measure.score_pass_rate(1.0) == 0


@given(
    pairs=st.lists(st.tuples(st.floats(-9, 9), st.integers(0, 3)), min_size=1, max_size=20),
    shift=st.floats(0.1, 5),
)
def test_a_larger_reduction_is_harder_in_any_order_of_the_pool(measure, pairs, shift):
    if measure.score_reduction is not None:
        reduction, strata = (np.array(column) for column in zip(*pairs, strict=True))
        score = measure.score_reduction(reduction, strata)
        assert np.isfinite(score).all()
        assert measure.score_reduction(reduction[::-1], strata[::-1])[::-1] == pytest.approx(score)
        assert (measure.score_reduction(reduction + shift, strata) > score).all()


def test_a_model_scores_every_question_alone_as_in_a_batch(measure, local):
    if measure.reads_model:
        size = {"measure": measure, "max_new_tokens": 4, "batch_size": 3}
        together = lm.score_examples(local, QUESTIONS, **size).difficulty
        alone = [lm.score_examples(local, [example], **size).difficulty[0] for example in QUESTIONS]
        assert np.isfinite(together).all()
        assert together == pytest.approx(alone, abs=1e-5)


def test_a_measure_has_exactly_one_source():
    words = {"name": "x", "title": "X", "summary": "X.", "paper": "", "options": NoOptions}
    loss = {"scores_loss": True}
    for sources in ({}, {**loss, "score_answers": len}, {**loss, "score_choices": len}):
        with pytest.raises(ValueError, match="has either scores_loss, or"):
            DifficultyMeasure(**words, **sources)
