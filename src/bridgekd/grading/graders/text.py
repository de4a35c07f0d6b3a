"""A short free text."""

import re
from collections.abc import Sequence

from bridgekd.grading.answer_extraction import get_last_sentence, strip_markup
from bridgekd.grading.answer_match import WRAPPING, fold_case, get_short_text, match_texts
from bridgekd.grading.grader import Grader
from bridgekd.variants import NoOptions

_QUOTED = re.compile(r"[\"“]([^\"“”]+)[\"”]")
_CONCLUSION = re.compile(
    r"(?:^|[:=]\s*|\bwe get\s+|\b(?:is|was|would be|will be)\s+)(\S+)$", re.IGNORECASE
)


_SHORT_STATEMENT = re.compile(r"(?:today|tomorrow|yesterday|it|this|that) is (\S+)", re.IGNORECASE)
_DATE_STATEMENT = re.compile(r"[^/]*\b(?:is|was|be) (\d{1,2}/\d{1,2}/\d{4})")
_DATE = re.compile(r"\b0?(\d{1,2})/0?(\d{1,2})/(\d{4})\b")


def canonicalize_text(answer: str, choices: Sequence[str], options: NoOptions) -> str:
    """Return the answer in lower case, without markup, outer punctuation, and zeros in a date.

    A sentence that ends in its only date is that date.
    """
    folded = _DATE.sub(r"\1/\2/\3", fold_case(answer))
    statement = _DATE_STATEMENT.fullmatch(folded)
    return statement[1] if statement else folded


def match_text(answer: str, gold: str, choices: Sequence[str], options: NoOptions) -> bool:
    """Return whether both are the same text except articles, or exactly the same number."""
    return match_texts(*(canonicalize_text(text, choices, options) for text in (answer, gold)))


def find_conclusion(text: str, choices: Sequence[str], options: NoOptions) -> str:
    """Return a short text itself, else the last quotation or conclusion of the last sentence."""
    if short := get_short_text(text):
        statement = _SHORT_STATEMENT.fullmatch(short.rstrip(WRAPPING))
        return canonicalize_text(statement[1] if statement else short, choices, options)
    sentence = get_last_sentence(text)
    if quoted := _QUOTED.findall(sentence):
        return fold_case(quoted[-1])
    conclusion = _CONCLUSION.search(strip_markup(sentence).rstrip(WRAPPING))
    return canonicalize_text(conclusion[1], choices, options) if conclusion else ""


GRADER = Grader(
    name="text",
    title="Text",
    summary="Equal in lower case, without articles and punctuation around it, or exactly the same "
    "number.",
    options=NoOptions,
    canonicalize=canonicalize_text,
    match=match_text,
    find_unmarked_answer=find_conclusion,
    has_alternatives=True,
)
