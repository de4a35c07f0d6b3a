"""One label of a small set, such as yes or no."""

import re
from collections.abc import Sequence

from bridgekd.grading.answer_match import fold_case, get_first_clause, get_short_text
from bridgekd.grading.grader import Grader
from bridgekd.variants import NoOptions

_HEDGE = re.compile(
    r"^(?:(?:most|very)\s+)?(?:likely|probably|possibly|perhaps|certainly|definitely)\s+"
)


def match_label(answer: str, gold: str, choices: Sequence[str], options: NoOptions) -> bool:
    """Return whether the label is the answer or its first clause, with or without a hedge.

    "probably no, it would not" matches "no".
    """
    folded = fold_case(answer)
    clause = get_first_clause(folded)
    return fold_case(gold) in (folded, clause, fold_case(_HEDGE.sub("", clause)))


GRADER = Grader(
    name="label",
    title="Label",
    summary="Equal in lower case; a hedge and text after the first clause are ignored.",
    options=NoOptions,
    canonicalize=lambda answer, *_: fold_case(answer),
    match=match_label,
    find_unmarked_answer=lambda text, *_: fold_case(get_short_text(text)),
)
