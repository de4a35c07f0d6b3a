"""Reads the final answer out of a text and compares it with the gold one, by kind of answer.

A text is graded by its last `Answer:` line; only where there is none are weaker signs tried
("####", "the answer is ...", and for numbers the last number). No sign at all is the empty answer,
which is never correct.
"""

import re
from collections.abc import Sequence
from fractions import Fraction

from bridgekd.core.prompts import ANSWER_MARK, LETTERS

_MARK = re.compile(rf"{ANSWER_MARK.rstrip(':')}\s*:\s*|####\s*", re.IGNORECASE)
_SAID = re.compile(r"\banswer\s+is\s*:?\s*([^\n]+)", re.IGNORECASE)
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?"
_NUMBER = re.compile(rf"(?<![\w.])[-+]?\s?[$€£]?\s?{_DIGITS}(?:\s?/\s?{_DIGITS})?")
_LETTER = re.compile(r"\(([A-Z])\)|([A-Z])(?:[.):]|$)")
_WRAPPING = " \t\n\r\"'*_`$.,;:!"
_ARTICLE = re.compile(r"^(?:a|an|the)\s+")


def split_answer(text: str) -> tuple[str, str]:
    """(rationale, answer as written), cut at the last mark; no mark gives the answer ""."""
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
    if kind == "number" and not _NUMBER.search(_plain_minus(written)):
        written = rationale if not written else ""
    return canonical(written, kind, choices)


def canonical(answer: str, kind: str, choices: Sequence[str] = ()) -> str:
    """`answer` in the form in which equal answers are equal strings; "" if it is not of its kind.

    choice: the option's text, from its letter or its text. number: the last one written, as an
    exact fraction. label, text: case-folded, white space and wrapping punctuation removed.
    """
    if kind == "number":
        return _canonical_number(answer)
    if kind == "choice":
        return _canonical_choice(answer, choices)
    return _folded(answer)


def is_correct(answer: str, gold: str, kind: str, choices: Sequence[str] = ()) -> bool:
    """Whether two answers mean the same; an empty one never does."""
    read = canonical(answer, kind, choices)
    return read != "" and read == canonical(gold, kind, choices)


def _folded(answer: str) -> str:
    return " ".join(answer.strip(_WRAPPING).casefold().split())


def _plain_minus(text: str) -> str:
    return text.replace("\N{MINUS SIGN}", "-").replace("\N{EN DASH}", "-")


def _canonical_number(answer: str) -> str:
    """The last number: behind `=` and behind earlier figures stands what was concluded."""
    found = _NUMBER.findall(_plain_minus(answer))
    if not found:
        return ""
    above, _, below = re.sub(r"[$€£,\s]", "", found[-1]).partition("/")
    try:
        return str(Fraction(above) / Fraction(below or "1"))
    except (ValueError, ZeroDivisionError):
        return ""


def _canonical_choice(answer: str, choices: Sequence[str]) -> str:
    plain = _folded(answer)
    texts = {_folded(choice): choice for choice in choices}
    if plain in texts:
        return texts[plain]
    letter = _LETTER.match(answer.strip(" \t\n\r\"'*_`$").upper().rstrip("\"'*_`$.,;!"))
    if letter and LETTERS.index(letter[1] or letter[2]) < len(choices):
        return choices[LETTERS.index(letter[1] or letter[2])]
    return texts.get(_ARTICLE.sub("", plain), "")
