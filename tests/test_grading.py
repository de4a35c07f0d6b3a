"""Reading a final answer out of what a model wrote."""

import pytest

from bridgekd.core.grading import is_correct, read_answer, split_answer
from bridgekd.core.prompts import ANSWER_LINE

CHOICES = ("red fox", "blue jay", "green frog")


@pytest.mark.parametrize(
    ("text", "kind", "answer"),
    [
        ("3 + 4 = 7.\nAnswer: 7", "number", "7"),
        ("So it is $1,234.50 in all.\nAnswer: $1,234.50.", "number", "2469/2"),
        ("I count 3 and then 5", "number", "5"),
        ("Answer: 4\nNo, wait.\nAnswer: 42.0", "number", "42"),
        ("Answer: -0", "number", "0"),
        ("Answer: .5", "number", "1/2"),
        ("Answer: 1/4", "number", "1/4"),
        ("Answer: 50/100", "number", "1/2"),
        ("Answer: \N{MINUS SIGN}5", "number", "-5"),
        ("Answer: 1e3", "number", "1000"),
        ("Answer: 3 + 4 = 7", "number", "7"),
        ("48/2 = <<48/2=24>>24 clips.\n#### 72", "number", "72"),
        ("Answer: none", "number", ""),
        ("The answer is (B).", "choice", "blue jay"),
        ("It flies.\nanswer: Blue Jay", "choice", "blue jay"),
        ("Answer: (C) green frog", "choice", "green frog"),
        ("Answer: **b**", "choice", "blue jay"),
        ("Answer: (D)", "choice", ""),
        ("Answer: A blue jay", "choice", "blue jay"),
        ("Answer: b. blue jay", "choice", "blue jay"),
        ("Answer: C", "choice", "green frog"),
        ("Answer: Both of them", "choice", ""),
        ("It is in the ward.\nAnswer:  The Ward.", "text", "the ward"),
        ("I cannot help with that.", "text", ""),
        ("", "number", ""),
    ],
)
def test_the_last_marked_answer_is_read_in_canonical_form(text, kind, answer):
    assert read_answer(text, kind, CHOICES if kind == "choice" else ()) == answer


def test_a_rationale_ends_where_its_answer_begins():
    assert split_answer("One step.\nAnswer: x\n") == ("One step.", "x")


def test_an_empty_answer_is_never_correct():
    assert not is_correct("", "", "text")


def test_equal_numbers_are_equal_however_they_are_written():
    assert is_correct("1,000.0", "1000", "number")
    assert not is_correct("1000.1", "1000", "number")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("3 + 4 = 7.\nAnswer: 7\nQuestion: 8 + 1\nAnswer: 9", "3 + 4 = 7.\nAnswer: 7\n"),
        ("Answer: (B) blue jay\n\n", "Answer: (B) blue jay\n"),
        ("So.\n**Answer:** -5\nmore", "So.\n**Answer:** -5\n"),
        ("Answer:\n\n $5 \nmore", "Answer:\n\n $5 \n"),
        ("Answer: 12", None),  # the line may go on
        ("Answer: \n", None),
        ("To get the Answer: add.\nThen", None),  # no line of its own
        ("My answer: 7\n", None),
    ],
)
def test_a_text_is_over_with_its_answer_line_and_not_before(text, kept):
    match = ANSWER_LINE.search(text)
    assert (text[: match.end()] if match else None) == kept
    if match:
        first = read_answer(text[: match.end()], "text")
        assert first and first == read_answer(text.split("\nQuestion")[0], "text")
