"""How the graders read signs, gold answers, thoughts, objects and labels."""

import gc
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from answer_types import get_type
from bridgekd.grading.answer_extraction import read_stated_answer
from bridgekd.grading.grade import check_rationale, join_reasoning
from bridgekd.records import Example

NUMBER, CHOICE, LABEL, TEXT, MATH = map(
    get_type, ("number", "multiple_choice", "label", "text", "math")
)
LETTERS = "ABCDEFGH"


def grade(answer_type, text, gold, choices=()):
    answer = answer_type.extract_answer(text, choices)
    return answer_type.is_correct(answer, gold, choices)


@given(st.integers(0, 10**7), st.sampled_from(["", "-", "minus ", "negative "]))
def test_the_sign_counts(n, sign):
    assert grade(NUMBER, f"Answer: {sign}{n}", str(-n if sign else n))
    assert bool(sign and n) != grade(NUMBER, f"Answer: {sign}{n}", str(n))


@given(st.integers(1000, 10**9))
def test_a_loss_in_parentheses_is_negative(n):
    for text in (f"({n:,})", f"$({n:,})", f"$({n})"):
        assert NUMBER.canonicalize(text) == str(-n)


@pytest.mark.parametrize(
    "gold",
    [r"\sqrt{5}", r"3\sqrt{7}", "(2,9]", "(-6,5)", "5:2", "y^2 + 4y - 6", "11:45", "2019-03-08",
     "4 boxes of 6", "8 or 9", "from 7 to 8", "[1, 4]", "17-19"],
)  # fmt: skip
def test_a_gold_answer_that_is_not_one_number_is_none(gold):
    assert not NUMBER.is_gold(gold)


@pytest.mark.parametrize(
    ("gold", "value"),
    [("36 cm^2", "36"), ("$1,500.50 per month", "3001/2"), ("7 + 5 = 12\n#### 12", "12"),
     ("45 %", "45"), ("10^5", "100000"), ("2.5 x 10^4", "25000"), ("x = 6", "6"), ("3¼", "13/4"),
     ("$72k", "72000"), ("10³", "1000"), ("2^{10}", "1024"), ("3,5 km", "7/2"),
     (r"\frac{6}{2 \times 5^2}", "3/25"), (r"\frac{1+2}{4}", "3/4"),
     ("9 °C", "9"), ("1 and 2/3", "5/3"), ("USD 40", "40"),
     ("$2.5 million", "2500000")],
)  # fmt: skip
def test_a_gold_answer_may_have_a_currency_a_unit_or_a_solution(gold, value):
    assert NUMBER.is_gold(gold) and NUMBER.canonicalize(gold) == value


def test_several_numbers_are_no_answer():
    for text in ("4 or 5", "between 4 and 5 and 6", "3:1", "10:30", "4-6"):
        assert not any(grade(NUMBER, f"Answer: {text}", str(n)) for n in range(61)), text


@given(st.permutations("ABCD"), st.integers(0, 3))
def test_a_letter_alone_is_the_letter_that_was_shown(order, index):
    choices, letter = tuple(order), LETTERS[index]
    answer = CHOICE.extract_answer(f"Answer: {letter}", choices)
    assert answer == f"({letter}) {choices[index]}"
    assert CHOICE.canonicalize(answer, choices) == answer


@pytest.mark.parametrize(
    "text",
    [
        '{"reasoning": "It burns.", "answer": "B"}',
        '```json\n{"answer": "(B)", "steps": ["It burns."]}\n```',
    ],
)
def test_an_object_has_its_answer_and_its_reasoning_in_fields(text):
    stated = read_stated_answer(text)
    assert CHOICE.extract_answer(text, ("wet stone", "dry wood")) == "dry wood"
    assert stated.rationale == "It burns." and stated.is_marked


@pytest.mark.parametrize("tag", ["think", "thinking", "reasoning", "THINK"])
def test_thoughts_are_reasoning_without_tags_and_hold_no_answer(tag):
    text = f"<{tag}>Maybe Answer: 8? No.</{tag}>\nTwo and seven are nine.\nAnswer: 9"
    stated = read_stated_answer(text)
    assert NUMBER.extract_answer(text) == "9"
    assert stated.rationale == "Maybe Answer: 8? No.\n\nTwo and seven are nine."
    assert not NUMBER.extract_answer(f"<{tag}>It is 8.\nAnswer: 8")
    assert NUMBER.extract_answer(f"It is 8.\nAnswer: 8</{tag}>The total is **9**.") == "9"


LABELS = ("Open", "Open, with limits", "Probably open", "Closed", "half_open")


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("end", ["", ".", ", because the door moves", " - see above"])
def test_an_answer_is_the_longest_label_that_it_begins_with(label, end):
    known = LABEL.with_labels(LABELS)
    right = [grade(known, f"Answer: {label}{end}", other) for other in LABELS]
    assert right == [other == label for other in LABELS]


def test_a_hedge_is_dropped_if_the_data_has_no_such_label():
    known = LABEL.with_labels(("yes", "no"))
    assert grade(known, "Answer: Probably no, it would not", "no")
    assert not grade(known, "Answer: no one knows", "no")


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("Ångström", "A\u030angstro\u0308m"),
        ("D’Arcy", "D'Arcy"),
        ("re‑entry", "re-entry"),
        ("ﬁne", "fine"),
    ],
)
def test_one_text_in_two_unicode_forms_is_one_answer(answer, gold):
    assert grade(TEXT, f"Answer: {answer}", gold) and grade(LABEL, f"Answer: {answer}", gold)


@pytest.mark.parametrize(
    ("gold", "same", "other"),
    [(r"\sqrt{8}", r"2\sqrt{2}", r"2\sqrt{3}"), ("(1,5]", "(1, 5]", "(1,5)"),
     (r"\frac{3}{4}", "0.75", "0.76"),
     ("x^2 - 3x", "x(x-3)", "x^2 + 3x"), ("12", "12 apples", "13"), ("0.33", "1/3", "0.35")],
)  # fmt: skip
def test_expressions_are_compared_by_what_they_mean(gold, same, other):
    assert grade(MATH, f"Answer: {same}", gold) and grade(MATH, rf"So \boxed{{{same}}}", gold)
    assert not grade(MATH, f"Answer: {other}", gold)


def test_the_reasoning_of_a_teacher_is_the_rationale_of_an_answer_alone():
    example = Example("a", "How many?", "9")
    alone = check_rationale(
        example, join_reasoning("Answer: 9", "Two and seven."), NUMBER, "teacher", "correct"
    )
    assert (alone.text, alone.answer, alone.kept) == ("Two and seven.", "9", True)
    assert join_reasoning("So it is.\nAnswer: 9", "Hm, 8?") == "So it is.\nAnswer: 9"
    assert join_reasoning("", "It is.\nAnswer: 9") == "It is.\nAnswer: 9"


def test_choices_that_differ_in_case_are_separated_by_letter_and_equal_ones_are_one():
    for index, unit in enumerate(("MeV", "meV")):
        assert CHOICE.canonicalize(f"({'AB'[index]}) {unit}", ("MeV", "meV")) == unit
    assert grade(CHOICE, "Answer: (A) lamp", "lamp", ("lamp", "rug", "lamp"))
    assert grade(CHOICE, "Answer: lamp", "lamp", ("lamp", "rug", "lamp"))


@pytest.mark.parametrize(
    "gold",
    ["72K", "1.2B", "5 bn", "2 dozen", "two thirds", "three point five", "one or two", "5 to ten",
     "72k", "5x", "2π", "5 minus two", "7 l of 9", "7r^2", "3s", "9-y", "(7,200)", "(0,5)", "0,5",
     "2,7", "7/3,4", "3x(x+1)", "4!", "2k", '7,8"'],
)  # fmt: skip
def test_a_gold_number_with_something_else_than_a_unit_is_refused(gold):
    assert not NUMBER.is_gold(gold)


@pytest.mark.parametrize(("answer", "gold"), [("5x", "5"), ("2π", "2"), ("(1,234)", "-1234")])
def test_a_variable_is_not_a_unit_of_an_expression(answer, gold):
    assert not grade(MATH, f"Answer: {answer}", gold)


@pytest.mark.parametrize(
    "text", ["not 5", "3-4 apples", "1,2,3", "12/25/2020", r"\sqrt{5}", "5:1 ratio"]
)
def test_a_stated_answer_that_is_not_one_number_is_none(text):
    assert not grade(NUMBER, f"Answer: {text}", "5") and not NUMBER.extract_answer(
        f"Answer: {text}"
    )


@pytest.mark.parametrize(
    "name", ["number", "math", "multiple_choice", "text", "label", "multi_label"]
)
@pytest.mark.parametrize(
    "text",
    [
        "5" + " " * 9000 + "x",
        "1 or " * 2000,
        "1(1)" * 3000,
        "\n" * 10_000,
        "9" * 5000,
        "1,'" * 3000,
    ],
)
def test_a_long_text_takes_no_time_and_raises_nothing(name, text):
    answer_type, started = get_type(name), time.monotonic()
    for written in (text, f"Answer: {text}"):
        answer = answer_type.extract_answer(written, ("x", "y"))
        answer_type.is_correct(answer, "5", ("x", "y"))
    assert time.monotonic() - started < 20  # it took minutes


def test_no_callback_of_the_garbage_collector_runs_where_an_expression_may_be_interrupted():
    """What the time limit of math-verify raises inside such a callback is lost."""
    modules = []

    def note_caller(phase, info):
        frame = sys._getframe(1)
        modules.append(frame.f_globals.get("__name__", ""))

    thresholds = gc.get_threshold()
    gc.callbacks.append(note_caller)
    gc.set_threshold(1)
    try:
        assert get_type("math").is_correct("\\sqrt{8}", "2\\sqrt{2}", ())
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(note_caller)
    assert modules and not [m for m in modules if m.startswith(("math_verify", "sympy"))]
    assert gc.isenabled()
