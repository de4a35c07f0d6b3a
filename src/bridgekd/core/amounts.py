"""Numbers as people and models write them, to exact fractions.

Read: signs, commas of thousands, currencies, scales ($1.5 million, $2bn), fractions and mixed
numbers, and an answer that is arithmetic all through, by its value. A percent sign changes nothing:
42 % is 42.
"""

import ast
import re
from collections.abc import Callable
from fractions import Fraction
from operator import add, mul, sub, truediv

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?"
_SCALES = {
    "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12,
    "k": 10**3, "m": 10**6, "mn": 10**6, "b": 10**9, "bn": 10**9,
}  # fmt: skip
_WORD = r"(?:hundred|thousand|million|billion|trillion)\b"
_AFTER_CURRENCY = r"(?:k|mn|m|bn|b)\b"  # without a currency, 5m are metres
_NUMBER = re.compile(
    rf"(?<![\w.])(?P<sign>[-+]?)\s?(?P<currency>[$€£]?)\s?"
    rf"(?:(?P<whole>\d+)\s+(?=\d+\s?/))?(?P<above>{_DIGITS})(?:\s?/\s?(?P<below>{_DIGITS}))?"
    rf"(?:\s?(?P<word>{_WORD})|(?(currency)\s?(?P<short>{_AFTER_CURRENCY})))?",
    re.IGNORECASE,
)
_JOINT = re.compile(r"\s*\)?\s+(?:and|or)\s+\(?")
_NUMBER_AND_UNIT = re.compile(rf"{_NUMBER.pattern}(?:\s[^\W\d]+)?$", re.IGNORECASE)
_TOO_LARGE = re.compile(r"[eE][-+]?0*[1-9]\d{3}")
_ARITHMETIC = re.compile(r"[\d\s.,+*/()$€£-]+")
_WORTH_COMPUTING = re.compile(r"[+*]|\s-\s|\(.*[-/].*\)")
_MOST = 200  # characters of arithmetic that are worth reading
_DO: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: add, ast.Sub: sub, ast.Mult: mul, ast.Div: truediv,
}  # fmt: skip


def number_in(text: str) -> Fraction | None:
    """The number of a plain text (see `signs.plain`): the value where all behind the last `=` is
    arithmetic, else the last number, behind which nothing else was concluded. None without any.
    """
    concluded = text.rpartition("=")[2].strip(" .")
    value = _computed(concluded)
    if value is None:
        *_, last = [None, *_NUMBER.finditer(text)]
        value = None if last is None else _value(last)
    return value


def leaves_open(text: str) -> bool:
    """Whether a plain answer offers several numbers: "3 or 4", "5 hours and 20 minutes"."""
    for joint in _JOINT.finditer(text):
        before = _NUMBER_AND_UNIT.search(text[: joint.start()])
        behind = _NUMBER.match(text, joint.end())
        if before and behind and _value(before) != _value(behind):
            return True
    return False


def whole_number(text: str) -> Fraction | None:
    """The number that the plain text is from end to end, a percent sign allowed; else None."""
    bare = text.strip().removesuffix("%").strip()
    found = _NUMBER.fullmatch(bare)
    return None if found is None else _value(found)


def n_decimals(written: str) -> int:
    """Digits behind the point of the last number of a plain text; 0 for a fraction or none."""
    *_, last = [None, *_NUMBER.finditer(written)]
    if last is None or last["below"] or "e" in last["above"].lower():
        return 0
    return len(last["above"].partition(".")[2])


def rounds_to(number: Fraction, gold: Fraction, *, decimals: int, unit: int = 1) -> bool:
    """Whether `number` is `gold` where gold was rounded to so many decimals of `unit`; with none,
    only where they are equal.
    """
    if not decimals:
        return number == gold
    return bool(abs(number - gold) * 2 * 10**decimals <= unit)


def scale_in(written: str) -> int:
    """The scale of the last number of a plain text: 1,000,000 for "1.5 million"."""
    *_, last = [None, *_NUMBER.finditer(written)]
    return 1 if last is None else _scale(last)


def _value(found: re.Match[str]) -> Fraction | None:
    if _TOO_LARGE.search(found[0]):
        return None  # no count of anything, and minutes of arithmetic
    try:
        above, below = (
            Fraction(found[part].replace(",", "")) if found[part] else Fraction(1)
            for part in ("above", "below")
        )
        amount = (int(found["whole"] or 0) + above / below) * _scale(found)
    except (ValueError, ZeroDivisionError):
        return None
    return -amount if found["sign"] == "-" else amount


def _scale(found: re.Match[str]) -> int:
    word = found["word"] or (found["short"] if found["currency"] else None)
    return _SCALES[word.lower()] if word else 1


def _computed(text: str) -> Fraction | None:
    """The value of what is arithmetic all through; `2-3` without spaces is a range, not that."""
    if len(text) > _MOST or not _ARITHMETIC.fullmatch(text) or not _WORTH_COMPUTING.search(text):
        return None
    try:
        return _evaluated(ast.parse(re.sub(r"[$€£,]", "", text).strip(), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError):
        return None


def _evaluated(node: ast.expr) -> Fraction:
    """ValueError for anything but numbers, signs and the four operations."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return Fraction(repr(node.value))
    if isinstance(node, ast.BinOp) and type(node.op) in _DO:
        return _DO[type(node.op)](_evaluated(node.left), _evaluated(node.right))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _evaluated(node.operand)
        return -value if isinstance(node.op, ast.USub) else value
    raise ValueError("no arithmetic")
