"""The contract of every grader, and of one in a file of the user."""

import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgekd.errors import InputError
from bridgekd.grading.answer_type import load_answer_type
from bridgekd.grading.graders import GRADERS
from bridgekd.variants import VariantRef

TOLERANCE = """
from fractions import Fraction

from pydantic import BaseModel, ConfigDict, Field

from bridgekd.grading.grader import Grader
from bridgekd.grading.graders.number import canonicalize_number, find_last_number


class ToleranceOptions(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    tolerance: float = Field(0.5, ge=0)


def match(answer, gold, choices, options):
    values = (Fraction(canonicalize_number(text, choices, options)) for text in (answer, gold))
    return abs(next(values) - next(values)) <= options.tolerance


GRADER = Grader(
    name="near",
    title="Near number",
    summary="Within a tolerance of the gold number.",
    paper="",
    options=ToleranceOptions,
    canonicalize=canonicalize_number,
    match=match,
    find_unmarked_answer=find_last_number,
)
"""
CHOICES = ("red fox", "blue jay", "green frog")
RIGHT_AND_WRONG = {
    "label": ("No", "Yes"),
    "multi_label": ("nitrogen; oxygen", "nitrogen"),
    "multiple_choice": ("blue jay", "red fox"),
    "math": (r"\sqrt{2}", r"\sqrt{3}"),
    "near": ("7", "8"),
    "number": ("7", "8"),
    "text": ("Paris", "Rome"),
}


@pytest.fixture(scope="module", params=[*GRADERS.list_names(), "a file"])
def ref(request, tmp_path_factory):
    if request.param != "a file":
        return VariantRef(name=request.param)
    path = tmp_path_factory.mktemp("grader") / "near.py"
    path.write_text(TOLERANCE)
    return VariantRef(file=str(path))


@pytest.fixture(scope="module")
def answer_type(ref):
    return load_answer_type(GRADERS.resolve(ref))


def test_it_has_a_title_and_one_sentence(answer_type):
    assert answer_type.grader.title and answer_type.grader.summary.endswith(".")
    assert "\n" not in answer_type.grader.summary


def test_it_refuses_an_option_that_it_does_not_have(ref, answer_type):
    known = list(answer_type.grader.options.model_fields)
    hint = f"Did you mean '{known[0]}'" if known else "Known: none"
    key = f"{known[0]}s" if known else "tolerance"
    with pytest.raises(InputError, match=f"unknown option '{key}'. {hint}"):
        GRADERS.resolve(ref.model_copy(update={"options": {key: 0.5}}))


def test_the_gold_answer_is_correct_and_another_is_not(answer_type):
    right, wrong = RIGHT_AND_WRONG[answer_type.settings.name]
    for text in (f"Thus.\nAnswer: {right}", f"So the answer is {right}.", right):
        assert answer_type.is_correct(answer_type.extract_answer(text, CHOICES), right, CHOICES)
    extracted = answer_type.extract_answer(f"Thus.\nAnswer: {wrong}", CHOICES)
    assert extracted and not answer_type.is_correct(extracted, right, CHOICES)


def test_an_empty_answer_and_a_refusal_are_never_correct(answer_type):
    right, _ = RIGHT_AND_WRONG[answer_type.settings.name]
    for text in ("", "Answer:", f"I'm sorry, I can't say whether it is {right}."):
        answer = answer_type.extract_answer(text, CHOICES)
        assert not answer_type.is_correct(answer, right, CHOICES)
    assert not answer_type.is_correct("", "", CHOICES)
    assert not answer_type.is_correct(right, None, CHOICES)


def test_the_cleaned_gold_answer_is_still_correct(answer_type):
    right, _ = RIGHT_AND_WRONG[answer_type.settings.name]
    cleaned = answer_type.clean_gold(right, CHOICES)
    assert answer_type.is_correct(cleaned, right, CHOICES)
    assert not answer_type.has_choices or cleaned in CHOICES


@given(text=st.text(max_size=80))
def test_the_canonical_form_is_stable_and_correct_for_every_text(answer_type, text):
    canonical = answer_type.canonicalize(text, CHOICES)
    assert answer_type.canonicalize(canonical, CHOICES) == canonical
    assert answer_type.is_correct(text, text, CHOICES) == (canonical != "")
    answer_type.extract_answer(text, CHOICES)


@pytest.mark.parametrize("text", ["5e5555", "3e333333333", "1e-9999", "1/1e99999", "9" * 5000])
def test_a_number_without_bounds_is_never_correct_and_takes_no_time(answer_type, text):
    right, _ = RIGHT_AND_WRONG[answer_type.settings.name]
    answer = answer_type.extract_answer(f"Answer: {text}", CHOICES)
    assert not answer_type.is_correct(answer, right, CHOICES)


def test_it_can_be_pickled_for_another_process(answer_type):
    right, _ = RIGHT_AND_WRONG[answer_type.settings.name]
    code = f"print(pickle.load(sys.stdin.buffer).is_correct({right!r}, {right!r}, {CHOICES!r}))"
    command = [sys.executable, "-c", f"import pickle, sys; {code}"]
    done = subprocess.run(command, input=pickle.dumps(answer_type), capture_output=True, check=True)
    assert done.stdout.strip() == b"True"
