"""One label of a small set, such as yes or no."""

import re
from collections.abc import Sequence

from bridgekd.grading.answer_extraction import get_first_sentence, get_last_sentence
from bridgekd.grading.answer_match import fold_case, get_first_clause, get_short_text
from bridgekd.grading.grader import Grader
from bridgekd.variants import NoOptions

_HEDGE = re.compile(
    r"^(?:(?:most|very)\s+)?(?:likely|perhaps|"
    r"(?!unlikely|hardly|barely|scarcely|rarely|partially|partly|only)[a-z]{4,}ly),?\s+"
)
_CLAUSE = re.compile(r"\s*(?:[.,;:/()\N{EM DASH}]|\s-\s|\bbut\s)\s*")
_JOINT = re.compile(r"\s(?:and|or|nor)\s")
_LEAD = re.compile(r"^(?:so|then|thus|hence|therefore|well|unfortunately)\s+")
_GOES_ON = re.compile(r"\s*(?:[.,;:(\N{EM DASH}]|-\s|because\b|$)")


def canonicalize_label(answer: str, choices: Sequence[str], *_: object) -> str:
    """Return the answer in lower case, without markup and outer punctuation; `_` is a space.

    An answer that states two different labels of the data, which are `choices`, is none: "".
    """
    folded = _fold(answer)
    return "" if len(_list_labels(folded, choices)) > 1 else folded


def match_label(answer: str, gold: str, choices: Sequence[str], options: NoOptions) -> bool:
    """Return whether the label is the answer or its first clause, with or without a hedge.

    "probably no, it would not" matches "no". `choices` are the labels of the data, if known. An
    answer that begins with some of them has the longest of these: "Yes, with conditions" and
    "Probably benign" are labels of their own if the data has them. Else a clause can be the label:
    "subjective, but generally no".
    """
    folded, label = _fold(answer), _fold(gold)
    if known := _list_labels(folded, choices):
        return known == [label]
    clause = get_first_clause(folded)
    return label in (folded, clause, fold_case(_HEDGE.sub("", clause)))


def find_label(text: str, choices: Sequence[str], options: NoOptions) -> str:
    """Return the one known label that the last or first line or sentence states.

    A short text without a known label is itself the answer.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    for line in (*lines[-1:], *lines[:1]):
        if known := _find_first_label(_fold(line), choices):
            return canonicalize_label(line, choices) and known
    for sentence in (get_last_sentence(text), get_first_sentence(text)):
        if stated := _list_labels(_fold(sentence), choices):
            return stated[0] if len(stated) == 1 else ""
    return canonicalize_label(get_short_text(text), choices)


def _fold(answer: str) -> str:
    return fold_case(fold_case(answer).replace("_", " "))


def _list_labels(folded: str, choices: Sequence[str]) -> list[str]:
    """Return the different known labels that a folded answer begins with or has as clauses."""
    known = {_fold(choice) for choice in choices}
    first = _find_first_label(folded, choices)
    clauses = (_LEAD.sub("", part) for part in _CLAUSE.split(folded.removeprefix(first)))
    stated = [first, *(fold_case(_HEDGE.sub("", part)) for part in clauses)]
    for joint in _JOINT.finditer(folded):  # "no simple yes or no" states neither
        left, right = folded[: joint.start()], folded[joint.end() :]
        ends = [k for k in known if re.search(rf"(?<!\w){re.escape(k)}$", left)]
        begins = [k for k in known if re.match(rf"{re.escape(k)}(?!\w)", right)]
        stated += [*ends, *begins] if ends and begins else []
    return list(dict.fromkeys(label for label in stated if label in known and label))


def _find_first_label(folded: str, choices: Sequence[str]) -> str:
    """Return the longest known label that a folded answer begins with, or ""."""
    known = map(_fold, choices)
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
