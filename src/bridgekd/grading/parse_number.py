"""Parse numbers, as people and models write them, to exact fractions.

A text is split into tokens (`number_tokens`), in which quantities are found (`find_quantities`) by
a grammar (`number_grammar`). A percent sign changes nothing: 42 % is 42. All functions take text
without markup (`answer_extraction`).

The place decides what a text with several quantities means. A rationale concludes with its last
one. A stated answer begins with its number; units, notes and years follow. A gold answer is one
number from end to end, or no number.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

from bridgekd.grading.find_quantities import UNIT_LETTERS, find_quantities
from bridgekd.grading.number_grammar import (
    Quantity,
    read_expression,
    read_loss,
    skip_exponent,
)
from bridgekd.grading.number_tokens import Token, read_tokens

_CURRENCIES = ("usd", "eur", "gbp", "us", "rs", "inr", "cad", "aud")
_MAX_UNIT_WORDS = 8
_MAX_LINE = 2_000  # characters at the end of a line without a stated answer
# With one of these after its number, a text is no number with a unit: "two to three", "5 dozen".
_OTHER_WORDS = (
    "half halves third thirds quarter quarters fourth fourths fifth fifths tenth tenths dozen "
    "dozens lakhs crores hundreds thousands millions billions and or to of minus plus times point "
    "over below under past pi not one two three four five six seven eight nine ten eleven twelve "
    "bn mn"
)
_NOT_UNITS = frozenset(_OTHER_WORDS.split())
_STATES_ANOTHER = frozenset(("is", "are", "equals", "makes", "gives"))
_APPROXIMATELY = re.compile(
    r"\s*(?:(?:about|approximately|approx\.?|around|roughly|exactly|nearly|almost|only|just|"
    r"a total of|at (?:least|most)|[≈~])\s*)?",
    re.IGNORECASE,
)
_CLAUSE_END = re.compile(r"[,;]?\s+(?:because|since|as)\b|;|,\s+(?!and\b|or\b)(?=[a-z])|\.\s")
_BULLET = re.compile(r"^\s*[-*•]\s+")
_NOTE = re.compile(r"(?<![\s(=*/+x^-])(?<!\band)(?<!\bor)\s+\([^()]*\)|\[[^\[\]]*\]")
_VARIABLE = re.compile(r"(?:^|[,;]|\band\b|\bor\b)\s*[A-Za-z]\w?\s*=")


def parse_number(text: str) -> Fraction | None:
    """Return the number at the end of a text; None if it has none, or a part of something else.

    >>> parse_number("3 + 4 = 7 apples"), parse_number("It is 10 * 45 / 3")
    (Fraction(7, 1), Fraction(150, 1))
    """
    lines = text.splitlines()
    line = next((line for line in reversed(lines) if re.search(r"\d", line)), text)
    line = _BULLET.sub("", line) if len(lines) > 1 else line
    line = line[-_MAX_LINE:]
    *_, last = [None, *find_quantities(read_tokens(line))]
    return last.value if last else None


def parse_stated_number(text: str) -> Fraction | None:
    """Return the number that a stated answer begins with; None if it has none or several.

    Of an equation, the last side that is one number counts. Notes in parentheses do not. An answer
    that begins with words has its last number.
    >>> parse_stated_number("15 (3 more than 12)"), parse_stated_number("25 cm^2")
    (Fraction(15, 1), Fraction(25, 1))
    >>> parse_stated_number("15 = 5 x 3"), parse_stated_number("2(3+4)")
    (Fraction(15, 1), Fraction(14, 1))
    >>> parse_stated_number("3 or 4"), parse_stated_number("4 + some more")
    (None, None)
    """
    if complete := _read_complete(read_tokens(text)):
        return complete.value
    text = _NOTE.sub(" ", text).strip()
    if len(_VARIABLE.findall(text)) > 1:
        return None  # x = 3, y = 5
    clauses = _CLAUSE_END.split(text)
    sides = re.split("[=≈]", next((part for part in clauses if re.search(r"\d", part)), text))
    stated = [side for side in sides if re.search(r"\d", side)]
    last = _read_side(stated[-1] if stated else sides[-1])
    if last and last.is_literal and last.value is not None:
        return last.value
    complete_sides = (_read_complete(read_tokens(side)) for side in reversed(stated[:-1]))
    alone = next((side for side in complete_sides if side and side.is_literal), last)
    return alone.value if alone else None


def parse_complete_number(text: str) -> Fraction | None:
    """Return the number if the text is one from end to end; else None.

    Aside from the number it may have a currency, a percent sign, a unit in words, and before it
    one letter with an equals sign. What can mean something else is none: 3,5 may be a list, 2k an
    expression, (20,100) a point.
    >>> parse_complete_number("$1,234.50"), parse_complete_number("x = 12 km/h")
    (Fraction(2469, 2), Fraction(12, 1))
    >>> parse_complete_number("(3,4]"), parse_complete_number("12 eggs in 3 boxes")
    (None, None)
    """
    quantity = _read_complete(read_tokens(text))
    return quantity.value if quantity and quantity.is_certain else None


def parse_exact_number(text: str) -> Fraction | None:
    """Return the number if the complete text is one, with or without a percent sign; else None."""
    quantity = _read_exact(read_tokens(text))
    return quantity.value if quantity and quantity.is_literal else None


def parse_certain_number(text: str) -> Fraction | None:
    """Return the number if the complete text is one in a notation with one meaning; else None.

    >>> parse_certain_number("1,234"), parse_certain_number("3,5"), parse_certain_number("(1,234)")
    (Fraction(1234, 1), None, None)
    """
    quantity = _read_exact(read_tokens(text))
    return quantity.value if quantity and quantity.is_literal and quantity.is_certain else None


def is_rounded_value(number: Fraction, gold: Fraction, gold_text: str) -> bool:
    """Return whether `gold` is `number`, rounded to the decimals of the last number of `gold_text`.

    The decimals count in the number's scale: "1.5 million" is rounded to 100,000. Without decimals
    only equal numbers match.
    >>> is_rounded_value(Fraction(1, 3), Fraction(33, 100), "0.33")
    True
    """
    *_, last = [None, *find_quantities(read_tokens(gold_text))]
    if last is None or last.step is None:
        return number == gold
    return abs(number - gold) * 2 <= last.step


def _read_side(text: str) -> Quantity | None:
    """Return the quantity that one side of a stated answer means, if it means one."""
    tokens = read_tokens(text[_match_end(_APPROXIMATELY, text) :])
    if complete := _read_complete(tokens):
        return complete
    quantities = list(find_quantities(tokens))
    if not quantities or _are_alternatives(tokens, quantities):
        return None
    first = quantities[0]
    if first.start == 0:
        after = tokens[first.end : first.end + 1]
        goes_on = any(t.text.lower() in _STATES_ANOTHER for t in tokens[first.end :])
        return None if goes_on or (after and after[0].text == "," and not after[0].gap) else first
    is_unreadable = any(t.text.lower() == "not" or t.text in "\\√π±" for t in tokens)
    return None if is_unreadable else quantities[-1]


def _match_end(pattern: re.Pattern[str], text: str) -> int:
    match = pattern.match(text)
    return match.end() if match else 0


def _are_alternatives(tokens: Sequence[Token], quantities: Sequence[Quantity]) -> bool:
    """Return whether two different numbers are joined: "3 or 4", "5 hours and 20 minutes"."""
    for left, right in pairwise(quantities):
        between = [t for t in tokens[left.end : right.start] if t.kind not in ("open", "close")]
        is_joint = between and between[-1].text.lower() in ("and", "or")
        if is_joint and len(between) <= 2 and left.value != right.value:
            return True
    return False


def _read_exact(tokens: Sequence[Token]) -> Quantity | None:
    """Return the quantity that all tokens are, if they are one."""
    quantity = read_loss(tokens) or read_expression(tokens, 0)
    return quantity if quantity and quantity.end == len(tokens) else None


def _read_complete(tokens: Sequence[Token]) -> Quantity | None:
    """Return the quantity that all tokens are, aside from a variable before and a unit after it."""
    while tokens and tokens[-1].text == ".":
        tokens = tokens[:-1]
    start = 0
    if len(tokens) > 1 and tokens[1].kind == "equals" and len(tokens[0].text) == 1:
        start = 2 if tokens[0].kind == "word" else 0
    if tokens[start:] and tokens[start].text.lower() in _CURRENCIES:
        start += 1 + (tokens[start + 1 : start + 2][0].text == "." if tokens[start + 1 :] else 0)
    quantity = read_loss(tokens) or read_expression(tokens, start)
    if quantity is None or quantity.value is None:
        return None
    unit = tokens[quantity.end :]
    if not unit:
        return quantity
    if not quantity.is_literal or not _is_unit(unit):
        return None
    is_letter = not unit[0].gap and len(unit[0].text) == 1 and unit[0].text.isalpha()
    is_certain = quantity.is_certain or unit[0].kind == "word"
    return replace(quantity, is_certain=is_certain and not is_letter)


def _is_unit(tokens: Sequence[Token]) -> bool:
    """Return whether the tokens after a number are a unit: `km/h`, `cm^2`, `dollars per month`."""
    index, n_words = 0, 0
    if tokens[0].text == "-" and not tokens[0].gap and len(tokens) > 1:
        index = 1
        if len(tokens[1].text) == 1:
            return False  # 12-p
    while index < len(tokens):
        token = tokens[index]
        is_word = token.kind == "word" and token.text.isalpha()
        if not is_word and token.text not in "%‰'\"°":
            return False
        n_words += 1
        is_variable = len(token.text) == 1 and is_word and token.text not in UNIT_LETTERS
        if token.text.lower() in _NOT_UNITS or n_words > _MAX_UNIT_WORDS:
            return False
        index = skip_exponent(tokens, index + 1)
        if is_variable and n_words == 1 and tokens[0].text != "°":
            return False
        if index + 1 < len(tokens) and tokens[index].text in ("/", "*", "·", "-", "."):
            index += 1
    return True
