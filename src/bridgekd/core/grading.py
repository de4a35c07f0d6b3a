"""Reads the final answer out of a text and compares it with the gold one, by kind of answer.

A text is graded by its last `Answer:` line; only where there is none are weaker signs tried ("the
answer is ...", and for numbers the last number). No sign at all is the empty answer, which is never
correct.
"""

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

from bridgekd.core.prompts import ANSWER_MARK, LETTERS

_MARK = re.compile(rf"{ANSWER_MARK.rstrip(':')}\s*:\s*", re.IGNORECASE)
_SAID = re.compile(r"\banswer\s+is\s*:?\s*([^\n]+)", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?\$?\s?\d[\d,]*(?:\.\d+)?")
_LETTER = re.compile(r"^\(?([A-Z])\)?(?=$|[\s.:,)])")
_WRAPPING = " \t\n\r\"'*_`$.,;:!"


def split_answer(text: str) -> tuple[str, str]:
    """(rationale, answer as written): cut at the last `Answer:`; the answer is "" where nothing
    marks it.
    """
    marks = list(_MARK.finditer(text))
    if marks:
        last = marks[-1]
        lines = text[last.end() :].strip().splitlines()
        return text[: last.start()].strip(), lines[0].strip() if lines else ""
    said = _SAID.findall(text)
    return text.strip(), said[-1].strip() if said else ""


def read_answer(text: str, kind: str, choices: Sequence[str] = ()) -> str:
    """The final answer of `text` in canonical form, or "" where there is none."""
    rationale, written = split_answer(text)
    if not written and kind == "number":
        numbers = _NUMBER.findall(rationale)
        written = numbers[-1] if numbers else ""
    return canonical(written, kind, choices)


def canonical(answer: str, kind: str, choices: Sequence[str] = ()) -> str:
    """`answer` in the form in which equal answers are equal strings; "" where it is not of its
    kind.

    choice: the option's text, from its letter or its text. number: plain decimal notation. label,
    text: case-folded, white space and wrapping punctuation removed.
    """
    if kind == "number":
        return _canonical_number(answer)
    if kind == "choice":
        return _canonical_choice(answer, choices)
    return " ".join(answer.strip(_WRAPPING).casefold().split())


def is_correct(answer: str, gold: str, kind: str, choices: Sequence[str] = ()) -> bool:
    """Whether two answers mean the same; an empty one never does."""
    read = canonical(answer, kind, choices)
    return read != "" and read == canonical(gold, kind, choices)


def _canonical_number(answer: str) -> str:
    found = _NUMBER.search(answer)
    if not found:
        return ""
    try:
        value = Decimal(re.sub(r"[$,\s]", "", found[0]))
    except InvalidOperation:
        return ""
    return "0" if value == 0 else f"{value.normalize():f}"


def _canonical_choice(answer: str, choices: Sequence[str]) -> str:
    plain = " ".join(answer.strip(_WRAPPING).casefold().split())
    for choice in choices:
        if plain == " ".join(choice.strip(_WRAPPING).casefold().split()):
            return choice
    letter = _LETTER.match(answer.strip(_WRAPPING).upper())
    if letter and LETTERS.index(letter[1]) < len(choices):
        return choices[LETTERS.index(letter[1])]
    return ""
