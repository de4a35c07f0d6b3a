"""Parse numbers, as people and models write them, to exact fractions.

The formats: those of `number_notation`, signs, thousands separators, currencies, scales ($1.5
million, $2bn), fractions, mixed numbers, and arithmetic, which gives its value. A percent sign
changes nothing: 42 % is 42. All functions take text without markup (`answer_extraction`).

The place decides what a text with several numbers means. A rationale concludes with its last
number. A stated answer begins with its number; units, notes and years follow. A gold answer is one
number from end to end, or no number.
"""

import ast
import re
from collections.abc import Callable
from fractions import Fraction
from operator import add, mul, sub, truediv

from bridgekd.grading.number_notation import normalize_numbers

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?"
_SCALES = {
    "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12,
    "k": 10**3, "m": 10**6, "mn": 10**6, "b": 10**9, "bn": 10**9,
}  # fmt: skip
_WORD = r"(?:hundred|thousand|million|billion|trillion)\b"
_AFTER_CURRENCY = r"(?:k|mn|m|bn|b)\b(?!\s?[/^])"  # without a currency, 5m are meters
_NUMBER = re.compile(
    rf"(?<![\w.])(?P<sign>[-+]?)\s?(?P<currency>[$€£¥₹]?)\s?"
    rf"(?:(?P<whole>\d+)\s+(?=\d+\s?/))?(?P<above>{_DIGITS})(?:\s?/\s?(?P<below>{_DIGITS}))?"
    rf"(?:\s?(?P<word>{_WORD})|(?(currency)\s?(?P<short>{_AFTER_CURRENCY})))?",
    re.IGNORECASE,
)
_ALTERNATIVES = re.compile(r"\)? (?:and|or) \(?")
_NUMBER_AND_UNIT = re.compile(rf"{_NUMBER.pattern}(?:\s[^\W\d]+)?$", re.IGNORECASE)
_TOO_LARGE = re.compile(r"[eE][-+]?0*[1-9]\d{3}")
_ARITHMETIC = re.compile(r"[\d\s.,+*/()$€£-]+")
_HAS_OPERATION = re.compile(r"[+*]|\s-\s|\(.*[-/].*\)")
_UNIT_WORD = r"(?:[^\W\d_]+\.?(?:[²³]|\^\{?-?\d\}?)?|°\s?[CFK]?|[%‰'\"])"
_UNIT = rf"(?:[\s-]?{_UNIT_WORD}(?:\s?[/·*\s-]\s?{_UNIT_WORD}){{0,7}})?"
_COMPLETE = re.compile(
    rf"(?:[a-z]\s?=\s?|(?:USD|EUR|GBP|US|Rs\.?|INR|CAD|AUD)\s?)?{_NUMBER.pattern}\s?[$€£¥₹]?{_UNIT}\s?\.?",
    re.IGNORECASE,
)
_LEADING = re.compile(
    rf"(?:(?:about|approximately|approx\.?|around|roughly|exactly|nearly|almost|only|just|"
    rf"a total of|at (?:least|most)|[≈~])\s*)?{_NUMBER.pattern}"
    r"(?!\s*(?:[-+*/x×÷^:]\s?[\d(]|times\b|plus\b|minus\b|divided\b|multiplied\b))"
    r"(?!.*\b(?:is|are|equals|makes|gives)\s)(?![\w.,^])",
    re.IGNORECASE | re.DOTALL,
)
_NOT_ONE_NUMBER = re.compile(r"[-+]?[\d.]+(?:\s?[:\N{EN DASH}-]\s?[\d.]+)+\W*")  # 3:1, 2:30, 10-12
# A text with one of these is no number with a unit: "two to three", "5 dozen", "10³", "5 B".
_NO_UNIT = re.compile(
    r"\d[²³]|\d\s?[KBM]\b|\d\s?(?:bn|mn)\b|[π√±]|(?<![\w$€£])\d[\d.,]*\s?[abceinpqrxyz]\b(?!\s?[/^²³])|"
    r"\b(?:half|halves|thirds?|quarters?|fourths?|fifths?|tenths?|dozens?|lakhs?|crores?|hundreds|"
    r"thousands|millions|billions|and|or|to|of|minus|plus|times|point|over|below|under|past|pi|not|"
    r"one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)\b",
)
_BEGINS_WITH_NUMBER = re.compile(r"[-+]?\s?[$€£¥₹]?\s?[\d.]*\d")
_UNREADABLE = re.compile(r"\bnot\b|[\\√π±^]|\d\s?:\s?\d|\d/\d+/\d", re.IGNORECASE)
_CLAUSE_END = re.compile(r"[,;]?\s+(?:because|since|as)\b|;|,\s+(?!and\b|or\b)(?=[a-z])|\.\s")
_NOTE = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")
_MAX_LENGTH = 200  # characters of arithmetic
_OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: add, ast.Sub: sub, ast.Mult: mul, ast.Div: truediv,
}  # fmt: skip


def parse_number(text: str) -> Fraction | None:
    """Return the number at the end of a text; None if it has none.

    This is the value of the text after the last `=` if that is arithmetic, else the last number.
    >>> parse_number("3 + 4 = 7 apples"), parse_number("It is 10 * 45 / 3")
    (Fraction(7, 1), Fraction(15, 1))
    """
    text = normalize_numbers(text)
    value = _evaluate_arithmetic(text.rpartition("=")[2].strip(" ."))
    if value is None and (last := _find_last(text)):
        return _to_fraction(last)
    return value


def parse_stated_number(text: str) -> Fraction | None:
    """Return the number that a stated answer begins with; None if it has none or several.

    After an equals sign, that part counts. Notes in parentheses do not. An answer that begins with
    words has its last number.
    >>> parse_stated_number("15 (3 more than 12)"), parse_stated_number("25 cm^2")
    (Fraction(15, 1), Fraction(25, 1))
    >>> parse_stated_number("3 + 4 = 7 apples"), parse_stated_number("3 or 4")
    (Fraction(7, 1), None)
    """
    text = normalize_numbers(text)
    if (value := parse_complete_number(text)) is not None:
        return value
    before, _, after = text.rpartition("=")
    if before and re.search(r"\d", after):
        return parse_stated_number(after)
    if (value := _evaluate_arithmetic(text.strip(" ."))) is not None:
        return value
    bare = next(
        part for part in (_CLAUSE_END.split(_NOTE.sub(" ", text).strip())[0], text)
        if re.search(r"\d", part) or part is text
    )  # fmt: skip
    if is_ambiguous(bare) or _NOT_ONE_NUMBER.fullmatch(bare):
        return None
    found = _LEADING.match(bare)
    if found is None and not _BEGINS_WITH_NUMBER.match(bare) and not _UNREADABLE.search(bare):
        found = _find_last(bare)
    return _to_fraction(found) if found else None


def parse_complete_number(text: str) -> Fraction | None:
    """Return the number if the text is one from end to end; else None.

    Aside from the number it may have a currency, a percent sign, a unit in words, and before it
    one letter with an equals sign.
    >>> parse_complete_number("$1,234.50"), parse_complete_number("x = 12 km/h")
    (Fraction(2469, 2), Fraction(12, 1))
    >>> parse_complete_number("(3,4]"), parse_complete_number("12 eggs in 3 boxes")
    (None, None)
    """
    text = normalize_numbers(text)
    if (match := _COMPLETE.fullmatch(text.strip())) and not _NO_UNIT.search(text):
        return _to_fraction(match)
    return _evaluate_arithmetic(text.strip(" ."))


def is_ambiguous(text: str) -> bool:
    """Return whether an answer has several numbers: "3 or 4", "5 hours and 20 minutes"."""
    text = " ".join(text.split())
    for joint in _ALTERNATIVES.finditer(text):
        before = _NUMBER_AND_UNIT.search(text[max(0, joint.start() - 60) : joint.start()])
        after = _NUMBER.match(text, joint.end())
        if before and after and _to_fraction(before) != _to_fraction(after):
            return True
    return False


def parse_exact_number(text: str) -> Fraction | None:
    """Return the number if the complete text is one, with or without a percent sign; else None."""
    match = _NUMBER.fullmatch(normalize_numbers(text).removesuffix("%").strip())
    return None if match is None else _to_fraction(match)


def is_rounded_value(number: Fraction, gold: Fraction, gold_text: str) -> bool:
    """Return whether `gold` is `number`, rounded to the decimals of the last number of `gold_text`.

    The decimals count in the number's scale: "1.5 million" is rounded to 100,000. Without decimals
    only equal numbers match.
    >>> is_rounded_value(Fraction(1, 3), Fraction(33, 100), "0.33")
    True
    """
    text = normalize_numbers(gold_text)
    last = None if _evaluate_arithmetic(text) is not None else _find_last(text)
    if last is None or last["below"] or "e" in last["above"].lower():
        return number == gold
    n_decimals = len(last["above"].partition(".")[2])
    if not n_decimals or not last["above"].partition(".")[2].strip("0"):
        return number == gold
    return bool(abs(number - gold) * 2 * 10**n_decimals <= _get_scale(last))


def _find_last(text: str) -> re.Match[str] | None:
    *_, last = [None, *_NUMBER.finditer(text)]
    return last


def _to_fraction(match: re.Match[str]) -> Fraction | None:
    # No real answer has such an exponent or so many digits, and their arithmetic takes minutes.
    if _TOO_LARGE.search(match[0]) or len(match[0]) > _MAX_LENGTH:
        return None
    try:
        above, below = (
            Fraction(match[part].replace(",", "")) if match[part] else Fraction(1)
            for part in ("above", "below")
        )
        amount = (int(match["whole"] or 0) + above / below) * _get_scale(match)
    except (ValueError, ZeroDivisionError):
        return None
    return -amount if match["sign"] == "-" else amount


def _get_scale(match: re.Match[str]) -> int:
    word = match["word"] or (match["short"] if match["currency"] else None)
    return _SCALES[word.lower()] if word else 1


def _evaluate_arithmetic(text: str) -> Fraction | None:
    """Return the value of a text that is only arithmetic; `2-3` without spaces is a range."""
    is_arithmetic = len(text) <= _MAX_LENGTH and _ARITHMETIC.fullmatch(text)
    if not is_arithmetic or not _HAS_OPERATION.search(text):
        return None
    try:
        plain = re.sub(r"[$€£]|(?<=\d),(?=\d{3})", "", text).strip()
        value = _evaluate_node(ast.parse(plain, mode="eval").body)
        return value if len(str(value)) <= _MAX_LENGTH else None
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError):
        return None


def _evaluate_node(node: ast.expr) -> Fraction:
    """Return the value. Raises ValueError except for numbers, signs and the four operations."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return Fraction(repr(node.value))
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_evaluate_node(node.left), _evaluate_node(node.right))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _evaluate_node(node.operand)
        return -value if isinstance(node.op, ast.USub) else value
    raise ValueError("not arithmetic")
