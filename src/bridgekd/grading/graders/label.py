"""One label of a small set, such as yes or no."""

import re
from collections.abc import Sequence

from bridgekd.grading.answer_match import fold_case, get_first_clause, get_short_text
from bridgekd.grading.grader import Grader
from bridgekd.variants import NoOptions

_HEDGE = re.compile(
    r"^(?:(?:most|very)\s+)?(?:likely|probably|possibly|perhaps|certainly|definitely|generally)\s+"
)


_GOES_ON = re.compile(r"\s*(?:[.,;:(\N{EM DASH}]|-\s|because\b|$)")


def canonicalize_label(answer: str, *_: object) -> str:
    """Return the answer in lower case, without markup and outer punctuation; `_` is a space."""
    return fold_case(fold_case(answer).replace("_", " "))


def match_label(answer: str, gold: str, choices: Sequence[str], options: NoOptions) -> bool:
    """Return whether the label is the answer or its first clause, with or without a hedge.

    "probably no, it would not" matches "no". `choices` are the labels of the data, if known. An
    answer that begins with some of them has the longest of these: "Yes, with conditions" and
    "Probably benign" are labels of their own if the data has them.
    """
    folded, label = canonicalize_label(answer), canonicalize_label(gold)
    if known := _find_first_label(folded, choices):
        return known == label
    clause = get_first_clause(folded)
    return label in (folded, clause, fold_case(_HEDGE.sub("", clause)))


def find_label(text: str, choices: Sequence[str], options: NoOptions) -> str:
    """Return a short text itself, else the known label that the text begins with, or ""."""
    folded = canonicalize_label(text)
    if known := _find_first_label(folded, choices):
        return known
    return canonicalize_label(get_short_text(text))


def _find_first_label(folded: str, choices: Sequence[str]) -> str:
    """Return the longest known label that a folded answer begins with, or ""."""
    known = map(canonicalize_label, choices)
    begun = [k for k in known if folded.startswith(k) and _GOES_ON.match(folded, len(k))]
    return max(begun, key=len, default="")


GRADER = Grader(
    name="label",
    title="Label",
    summary="Equal in lower case; a hedge and text after the first clause are ignored.",
    options=NoOptions,
    canonicalize=canonicalize_label,
    match=match_label,
    compares_labels=True,
    find_unmarked_answer=find_label,
)
