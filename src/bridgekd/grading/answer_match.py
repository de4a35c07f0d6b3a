"""Compare two answers as texts and as numbers. Several graders use these rules."""

import re
from functools import lru_cache

from bridgekd.grading.answer_extraction import strip_markup
from bridgekd.grading.parse_number import (
    is_rounded_value,
    parse_certain_number,
    parse_exact_number,
)

WRAPPING = " \t\n\r\"'“”‘’*_`$.,;:!"
_ARTICLE = re.compile(r"^(?:a|an|the)\s+")
_CLAUSE = re.compile(r"[.,;:(\N{EM DASH}]|\s-\s|\sbecause\s")
_MAX_SHORT_WORDS = 5


@lru_cache(4096)  # a question's choices are compared with every answer to it
def fold_case(answer: str) -> str:
    """Return the answer in lower case, without markup, extra white space and outer punctuation.

    >>> fold_case('"The  Ward".')
    'the ward'
    """
    previous, folded = None, answer
    # One removal may uncover markup: a backtick between a backslash and a space.
    while folded != previous:
        previous = folded
        folded = " ".join(strip_markup(folded).strip(WRAPPING).casefold().split())
    return folded


def strip_article(folded: str) -> str:
    """Return a folded answer without its leading article."""
    return _ARTICLE.sub("", folded)


def get_first_clause(folded: str) -> str:
    """Return a folded answer up to its first comma, period, colon, dash or "because"."""
    return fold_case(_CLAUSE.split(folded)[0])


def get_short_text(text: str) -> str:
    """Return a text of one line and at most 5 words, which is an answer by itself; else ""."""
    stripped = strip_markup(text)
    is_short = "\n" not in stripped and len(stripped.split()) <= _MAX_SHORT_WORDS
    return stripped if is_short else ""


def match_texts(answer: str, gold: str) -> bool:
    """Return whether two canonical answers are the same text except articles, or the same number.

    A notation with two meanings is no number here: 3,5 may be a list.
    >>> match_texts("the ward", "ward"), match_texts("1,200.0", "1200"), match_texts("3,5", "3.5")
    (True, True, False)
    """
    if strip_article(answer) == strip_article(gold):
        return True
    number = parse_certain_number(strip_markup(answer))
    return number is not None and number == parse_certain_number(strip_markup(gold))


def match_values(answer: str, gold: str, gold_as_written: str) -> bool:
    """Return whether two canonical answers are the same number, or the same text except articles.

    A gold number with decimals was rounded: an answer that rounds to it matches.
    >>> match_values("the ward", "ward", "Ward"), match_values("1/3", "33/100", "0.33")
    (True, True)
    """
    if strip_article(answer) == strip_article(gold):
        return True
    number = parse_exact_number(strip_markup(answer))
    gold_number = parse_exact_number(strip_markup(gold))
    if number is None or gold_number is None:
        return False
    return is_rounded_value(number, gold_number, strip_markup(gold_as_written))
