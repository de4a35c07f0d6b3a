"""A mathematical expression: a number, a root, a tuple, an interval, a formula."""

import gc
import re
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

from bridgekd.errors import InputError
from bridgekd.grading.answer_extraction import normalize_unicode, strip_markup
from bridgekd.grading.answer_match import WRAPPING, get_short_text, match_values
from bridgekd.grading.grader import Grader
from bridgekd.grading.graders.number import SOLUTION_MARK, find_last_number
from bridgekd.grading.parse_number import parse_certain_number
from bridgekd.variants import NoOptions

_WRAPPING = WRAPPING.replace("$", "").replace("!", "")
_POWER = re.compile(r"\u207b?[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+")
_TIMEOUT_S = 5  # of parsing and of comparing, each
_DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))


def canonicalize_expression(answer: str, choices: Sequence[str], options: NoOptions) -> str:
    """Return a number as an exact fraction, and an expression as written, without delimiters."""
    written = normalize_unicode(answer.rpartition(SOLUTION_MARK)[2]).strip(" \t\r\n.")
    if (number := _parse_plain_number(written)) is not None:
        return str(number)
    written = _POWER.sub(_write_power, written)
    previous = None
    while written != previous:
        previous, written = written, " ".join(written.split()).strip(_WRAPPING)
        for start, end in _DELIMITERS:
            is_longer = len(written) > len(start + end)
            if is_longer and written.startswith(start) and written.endswith(end):
                written = written[len(start) : -len(end)].strip()
    return written


def _write_power(match: re.Match[str]) -> str:
    return f"^{{{unicodedata.normalize('NFKC', match[0])}}}".replace("\N{MINUS SIGN}", "-")


def _parse_plain_number(written: str) -> Fraction | None:
    """Return a number without unit, words or variables; None for every other expression."""
    return parse_certain_number(strip_markup(written))


def match_expression(answer: str, gold: str, choices: Sequence[str], options: NoOptions) -> bool:
    """Return whether both are the same number, else whether math-verify proves them equal.

    A gold number with decimals may be rounded. Raises InputError if math-verify is not installed.
    """
    written, expected = (canonicalize_expression(text, (), options) for text in (answer, gold))
    if written == expected:
        return True
    if _parse_plain_number(written) is not None and _parse_plain_number(expected) is not None:
        return match_values(written, expected, gold)
    return _verify(expected, written)


def find_expression(text: str, choices: Sequence[str], options: NoOptions) -> str:
    """Return a short text itself, else the number that the text concludes with."""
    if get_short_text(text):
        return canonicalize_expression(text, choices, options)
    return find_last_number(text, choices, options)


def _verify(gold: str, answer: str) -> bool:
    try:
        from math_verify import parse, verify
    except ImportError as exc:
        raise InputError(
            "data.answer_type: math needs math-verify, which is not installed. Run pip install "
            "'bridgekd[math]'."
        ) from exc
    # math-verify interrupts itself by a signal, which Python allows in the main thread only.
    in_main = threading.current_thread() is threading.main_thread()
    limit = _TIMEOUT_S if in_main else None
    with _pause_garbage_collector():
        sides: list[Any] = [parse(f"${side}$", parsing_timeout=limit) for side in (gold, answer)]
        return all(sides) and bool(verify(*sides, timeout_seconds=limit))


@contextmanager
def _pause_garbage_collector() -> Iterator[None]:
    """What an interrupt raises inside a callback of the collector is lost, and so is the limit."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


GRADER = Grader(
    name="math",
    title="Mathematical expression",
    summary="Equal as exact fractions, else proven equal by math-verify (extra `math`).",
    options=NoOptions,
    canonicalize=canonicalize_expression,
    match=match_expression,
    find_unmarked_answer=find_expression,
    has_alternatives=True,
    clean_gold=lambda answer, *_: answer.rpartition(SOLUTION_MARK)[2].strip(),
)
