"""When two answers are the same text or the same number: what several graders share."""

import re

from bridgekd.grading.answer_extraction import strip_markup
from bridgekd.grading.parse_number import (
    count_decimals,
    is_rounded_value,
    parse_exact_number,
    parse_scale,
)

WRAPPING = " \t\n\r\"'“”‘’*_`$.,;:!"
_ARTICLE = re.compile(r"^(?:a|an|the)\s+")
_CLAUSE = re.compile(r"[.,;:(\N{EM DASH}]|\s-\s|\sbecause\s")
_MAX_SHORT_WORDS = 5


def fold_case(answer: str) -> str:
    """Return the answer in lower case, without markup, extra white space and punctuation around.

    >>> fold_case('"The  Ward".')
    'the ward'
    """
    folded = answer
    # One removal may uncover markup: a backtick between a backslash and a blank.
    while (again := _fold_once(folded)) != folded:
        folded = again
    return folded


def strip_article(folded: str) -> str:
    """Return a folded answer without its leading article."""
    return _ARTICLE.sub("", folded)


def get_first_clause(folded: str) -> str:
    """Return a folded answer up to its first comma, period, colon, dash or "because"."""
    return fold_case(_CLAUSE.split(folded)[0])


def get_short_text(text: str) -> str:
    """Return a text of one line and a few words, which is an answer by itself; else ""."""
    stripped = strip_markup(text)
    is_short = "\n" not in stripped and len(stripped.split()) <= _MAX_SHORT_WORDS
    return stripped if is_short else ""


def match_values(answer: str, gold: str, gold_as_written: str) -> bool:
    """Return whether two canonical answers are the same text, but for articles, or number.

    A gold number with decimals was rounded: an answer that rounds to it matches.
    """
    if strip_article(answer) == strip_article(gold):
        return True
    number = parse_exact_number(strip_markup(answer))
    gold_number = parse_exact_number(strip_markup(gold))
    if number is None or gold_number is None:
        return False
    written = strip_markup(gold_as_written)
    return is_rounded_value(
        number, gold_number, n_decimals=count_decimals(written), unit=parse_scale(written)
    )


def _fold_once(text: str) -> str:
    return " ".join(strip_markup(text).strip(WRAPPING).casefold().split())
