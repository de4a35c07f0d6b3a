"""Several labels, spans or numbers, in any order."""

import re
from collections.abc import Sequence

from bridgekd.grading.answer_extraction import strip_markup
from bridgekd.grading.answer_match import fold_case, get_short_text, match_values, strip_article
from bridgekd.grading.grader import Grader
from bridgekd.grading.parse_number import parse_exact_number
from bridgekd.variants import NoOptions

_SEPARATOR = re.compile(r"\s*(?:[;|\n]|,(?!\d{3})|,?\s+(?:and|&)\s)\s*", re.IGNORECASE)
_BULLET = re.compile(r"^(?:[-*•]|\d+[.)])\s+")


def canonicalize_labels(answer: str, choices: Sequence[str], options: NoOptions) -> str:
    """Return the distinct items, sorted and joined by "; "."""
    return "; ".join(sorted({_canonicalize_item(item) for item in _split_items(answer)}))


def match_labels(answer: str, gold: str, choices: Sequence[str], options: NoOptions) -> bool:
    """Return whether the items of both match one to one."""
    unmatched = {_canonicalize_item(item): item for item in _split_items(gold)}
    for item in dict.fromkeys(map(_canonicalize_item, _split_items(answer))):
        matches = (g for g, as_written in unmatched.items() if match_values(item, g, as_written))
        if (match := next(matches, None)) is None:
            return False
        del unmatched[match]
    return not unmatched


def _split_items(answer: str) -> list[str]:
    items = _SEPARATOR.split(re.sub(r"[ \t]+", " ", strip_markup(answer)).strip("[]"))
    return [item for item in items if _canonicalize_item(item)]


def _canonicalize_item(item: str) -> str:
    number = parse_exact_number(strip_markup(_BULLET.sub("", item)).strip("\"'“” .,;:!*"))
    if number is not None:
        return str(number)
    shorter = strip_article(fold_case(_BULLET.sub("", item)).strip("[]\\"))
    return item if shorter == item else _canonicalize_item(shorter)


GRADER = Grader(
    name="multi_label",
    title="Several labels",
    summary="The same set of labels, spans or numbers, separated by semicolons, commas, lines or "
    '"and".',
    options=NoOptions,
    canonicalize=canonicalize_labels,
    match=match_labels,
    joins_lists=True,
    find_unmarked_answer=lambda text, *rest: canonicalize_labels(get_short_text(text), *rest),
)
