"""One number."""

from collections.abc import Sequence

from bridgekd.grading.answer_extraction import strip_markup
from bridgekd.grading.answer_match import match_values
from bridgekd.grading.grader import Grader
from bridgekd.grading.parse_number import (
    parse_complete_number,
    parse_number,
    parse_stated_number,
)
from bridgekd.variants import NoOptions

SOLUTION_MARK = "####"  # starts the answer in a gold answer that is a solution, as in GSM8K


def canonicalize_number(answer: str, choices: Sequence[str], options: NoOptions) -> str:
    """Return the number as an exact fraction; "" if there is none, or several."""
    written = strip_markup(answer.rpartition(SOLUTION_MARK)[2])
    number = parse_stated_number(written)
    return "" if number is None else str(number)


def match_number(answer: str, gold: str, choices: Sequence[str], options: NoOptions) -> bool:
    """Return whether the numbers are equal, or the gold number is the answer rounded."""
    number, gold_number = (canonicalize_number(text, choices, options) for text in (answer, gold))
    return match_values(number, gold_number, gold)


def is_complete_number(answer: str, choices: Sequence[str], options: NoOptions) -> bool:
    """Return whether the answer, or what follows `####`, is one number from end to end."""
    return parse_complete_number(strip_markup(answer.rpartition(SOLUTION_MARK)[2])) is not None


def find_last_number(text: str, choices: Sequence[str], options: NoOptions) -> str:
    """Return the number at the end of the text."""
    number = parse_number(strip_markup(text))
    return "" if number is None else str(number)


GRADER = Grader(
    name="number",
    title="Number",
    summary="Equal as exact fractions; a gold number with decimals may be rounded.",
    options=NoOptions,
    canonicalize=canonicalize_number,
    match=match_number,
    is_gold=is_complete_number,
    has_alternatives=True,
    other_types=": math for expressions and points, multi_label for lists, text for dates, times "
    "and ratios. Write decimals with a point (3.5) and thousands as digits",
    find_unmarked_answer=find_last_number,
    clean_gold=lambda answer, *_: answer.rpartition(SOLUTION_MARK)[2].strip(),
)
