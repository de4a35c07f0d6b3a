"""One label of a few, such as yes or no."""

import re
from collections.abc import Sequence

from bridgekd.grading.answer_match import fold_case, get_first_clause, get_short_text
from bridgekd.grading.grader import Grader
from bridgekd.variants import NoOptions

_HEDGE = re.compile(
    r"^(?:(?:most|very)\s+)?(?:likely|probably|possibly|perhaps|certainly|definitely)\s+"
)


def canonicalize_label(answer: str, choices: Sequence[str], options: NoOptions) -> str:
    """Return the answer in lower case, without markup and punctuation around it."""
    return fold_case(answer)


def match_label(answer: str, gold: str, choices: Sequence[str], options: NoOptions) -> bool:
    """Return whether the label is the answer or its first clause, with or without a hedge.

    "probably no, it would not" matches "no".
    """
    folded = fold_case(answer)
    clause = get_first_clause(folded)
    return fold_case(gold) in (folded, clause, fold_case(_HEDGE.sub("", clause)))


def find_short_label(text: str, choices: Sequence[str], options: NoOptions) -> str:
    """Return a short text itself."""
    return fold_case(get_short_text(text))


GRADER = Grader(
    name="label",
    title="Label",
    summary="Equal in lower case; the answer may be hedged and may go on after its first clause.",
    paper="",
    options=NoOptions,
    canonicalize=canonicalize_label,
    match=match_label,
    find_unmarked_answer=find_short_label,
)
