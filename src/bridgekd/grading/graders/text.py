"""A short free text."""

import re
from collections.abc import Sequence

from bridgekd.grading.answer_extraction import get_last_sentence, strip_markup
from bridgekd.grading.answer_match import WRAPPING, fold_case, get_short_text, match_values
from bridgekd.grading.grader import Grader
from bridgekd.variants import NoOptions

_QUOTED = re.compile(r"[\"“]([^\"“”]+)[\"”]")
_CONCLUSION = re.compile(r"(?:^|[:=]\s*|\bwe get\s+|\bis\s+)(\S+)$", re.IGNORECASE)


_SHORT_STATEMENT = re.compile(r"(?:today|tomorrow|yesterday|it|this|that) is (\S+)", re.IGNORECASE)
_DATE = re.compile(r"\b0?(\d{1,2})/0?(\d{1,2})/(\d{4})\b")


def canonicalize_text(answer: str, choices: Sequence[str], options: NoOptions) -> str:
    """Return the answer in lower case, without markup, outer punctuation, and zeros in a date."""
    return _DATE.sub(r"\1/\2/\3", fold_case(answer))


def match_text(answer: str, gold: str, choices: Sequence[str], options: NoOptions) -> bool:
    """Return whether both are the same number, or the same text except articles."""
    read, expected = (canonicalize_text(text, choices, options) for text in (answer, gold))
    return match_values(read, expected, gold)


def find_conclusion(text: str, choices: Sequence[str], options: NoOptions) -> str:
    """Return a short text itself, else the last quotation or conclusion of the last sentence."""
    if short := get_short_text(text):
        statement = _SHORT_STATEMENT.fullmatch(short.rstrip(WRAPPING))
        return fold_case(statement[1] if statement else short)
    sentence = get_last_sentence(text)
    if quoted := _QUOTED.findall(sentence):
        return fold_case(quoted[-1])
    conclusion = _CONCLUSION.search(strip_markup(sentence).rstrip(WRAPPING))
    return fold_case(conclusion[1]) if conclusion else ""


GRADER = Grader(
    name="text",
    title="Text",
    summary="Equal in lower case, without articles and punctuation around it.",
    options=NoOptions,
    canonicalize=canonicalize_text,
    match=match_text,
    find_unmarked_answer=find_conclusion,
)
