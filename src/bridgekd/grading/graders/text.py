"""A short free text."""

import re
from collections.abc import Sequence

from bridgekd.grading.answer_extraction import get_last_sentence, strip_markup
from bridgekd.grading.answer_match import WRAPPING, fold_case, get_short_text, match_values
from bridgekd.grading.grader import Grader
from bridgekd.variants import NoOptions

_QUOTED = re.compile(r"[\"“]([^\"“”]+)[\"”]")
_CONCLUSION = re.compile(r"(?:^|[:=]\s*|\bwe get\s+|\bis\s+)(\S+)$", re.IGNORECASE)


def match_text(answer: str, gold: str, choices: Sequence[str], options: NoOptions) -> bool:
    """Return whether both are the same number, or the same text except articles."""
    return match_values(fold_case(answer), fold_case(gold), gold)


def find_conclusion(text: str, choices: Sequence[str], options: NoOptions) -> str:
    """Return a short text itself, else the last quotation or conclusion of the last sentence."""
    if short := get_short_text(text):
        return fold_case(short)
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
    canonicalize=lambda answer, *_: fold_case(answer),
    match=match_text,
    find_unmarked_answer=find_conclusion,
)
