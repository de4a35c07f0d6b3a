"""Read the number or the arithmetic expression that begins at a token.

    expression = product {("+" | "-" | "plus" | "minus") product}
    product    = signed {("*" | "/" | "x" | "times" | "divided by" | "multiplied by") signed}
    signed     = ["+" | "-"] power {group}          a group directly after it is a factor: 2(3+4)
    power      = amount [("^" | "**") integer | superscript]
    amount     = group | [currency] number {scale} [currency | "%"]
    number     = numeral ["/" numeral] | integer ["and"] fraction | integer "and a half"
    group      = "(" expression ")"

A date, a time, a ratio, a range (2-3) and a list (1,2,3) are no numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import NamedTuple

from bridgekd.grading.number_tokens import MAX_DIGITS, Token

_SCALES = {
    "hundred": 10**2, "thousand": 10**3, "lakh": 10**5, "million": 10**6, "crore": 10**7,
    "billion": 10**9, "trillion": 10**12,
}  # fmt: skip
_CURRENCY_SCALES = {"k": 10**3, "m": 10**6, "mn": 10**6, "b": 10**9, "bn": 10**9}
_WORD_OPERATORS = {"x": "*", "times": "*", "plus": "+", "minus": "-"}
BY_OPERATORS = {"divided": "/", "multiplied": "*"}
_MAX_DEPTH = 20  # of groups in groups
_MAX_EXPONENT = 400
END_TOKEN = Token("other", "", "\n")


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number or an arithmetic expression: the tokens from `start` to `end`.

    value: None if it is no number. step: one unit of its last decimal, for a number with decimals.
    is_literal: a number without operation. is_difference: numbers joined by "-" without spaces.
    is_certain: no notation that can mean something else: 3,5 and 72k can.
    """

    start: int
    end: int
    value: Fraction | None
    step: Fraction | None = None
    is_literal: bool = True
    is_difference: bool = False
    is_percent: bool = False
    is_certain: bool = True


class _Operator(NamedTuple):
    symbol: str
    end: int
    is_spaced: bool


def read_expression(tokens: Sequence[Token], start: int, depth: int = 0) -> Quantity | None:
    """Return the longest expression that begins at a token, or None."""
    left = _read_product(tokens, start, depth)
    while left and (operator := read_operator(tokens, left.end, "+-")):
        right = _read_product(tokens, operator.end, depth)
        if right is None:
            break
        left = _combine(left, operator, right)
    if left is None or depth:
        return left
    return _read_list(tokens, replace(left, value=None) if left.is_difference else left)


def read_loss(tokens: Sequence[Token]) -> Quantity | None:
    """Return the negative number that a text in parentheses is: $(1,234), as tables write it.

    Without a currency it is not certain: (20,100) may be a point.
    """
    kinds = "".join({"open": "(", "close": ")", "currency": "$"}.get(t.kind, "n") for t in tokens)
    index = next((i for i in range(3) if kinds.startswith(("(n)", "($n)"), i)), None)
    if index is None or kinds[:index] not in ("", "$"):
        return None
    has_currency = "$" in kinds[: index + 2]
    place = index + 1 + (kinds[index + 1] == "$")
    numeral = tokens[place]
    is_grouped = numeral.kind == "numeral" and "," in numeral.text
    if numeral.value is None or not (index or (is_grouped and not numeral.has_decimal_comma)):
        return None
    scale, end, _ = _read_scale(tokens, place + 2, has_currency)
    if any(token.kind == "numeral" for token in tokens[end:]):
        return None
    return Quantity(0, end, -numeral.value * scale, is_certain=has_currency)


def skip_exponent(tokens: Sequence[Token], index: int) -> int:
    """Return the index after the exponent of a unit, if there is one: cm^2, m^{-1}, m²."""
    if get_token(tokens, index).kind == "power":
        return index + 1
    exponent = _read_exponent(tokens, index)
    return exponent[1] if exponent else index


def get_token(tokens: Sequence[Token], index: int) -> Token:
    return tokens[index] if 0 <= index < len(tokens) else END_TOKEN


def read_operator(tokens: Sequence[Token], index: int, symbols: str) -> _Operator | None:
    """Return the operator at a token if it is one of `symbols` and no bullet, sign or dash."""
    token, end = get_token(tokens, index), index + 1
    word = token.text.lower() if token.kind == "word" else ""
    if token.kind == "operator":
        symbol = "*" if token.text in "xX·" else token.text
    elif word in BY_OPERATORS and get_token(tokens, end).text == "by":
        symbol, end = BY_OPERATORS[word], end + 1
    else:
        symbol = _WORD_OPERATORS.get(word, "")
    after = get_token(tokens, end)
    if word and (not token.gap or after.kind not in ("numeral", "fraction", "currency", "open")):
        return None
    is_sign = symbol in ("+", "-") and bool(token.gap) and not after.gap and not word
    if not symbol or symbol not in symbols or is_sign or "\n" in token.gap + after.gap:
        return None
    return _Operator(symbol, end, bool(token.gap and after.gap))


def _read_product(tokens: Sequence[Token], start: int, depth: int) -> Quantity | None:
    left = _read_signed(tokens, start, depth)
    while left and (operator := read_operator(tokens, left.end, "*/")):
        right = _read_signed(tokens, operator.end, depth)
        if right is None:
            break
        is_date = left.is_literal and not operator.is_spaced and tokens[left.end - 2].text == "/"
        is_scientific = (
            operator.symbol == "*" and left.is_literal and _is_power_of_10(tokens, right)
        )
        left = replace(_combine(left, operator, right), is_literal=is_scientific)
        if is_date and operator.symbol == "/":
            left = replace(left, value=None)
    return left


def _is_power_of_10(tokens: Sequence[Token], right: Quantity) -> bool:
    return tokens[right.start].text == "10" and (
        tokens[right.start + 1 : right.end] != [] and right.is_literal
        and (tokens[right.start + 1].kind == "power" or tokens[right.start + 1].text in ("^", "**"))
    )  # fmt: skip


def _read_signed(tokens: Sequence[Token], start: int, depth: int) -> Quantity | None:
    sign = get_token(tokens, start).text
    has_sign = sign in ("+", "-")
    quantity = _read_power(tokens, start + has_sign, depth)
    if quantity is None:
        return None
    value = quantity.value if sign != "-" or quantity.value is None else -quantity.value
    quantity = replace(quantity, start=start, value=value)
    while get_token(tokens, quantity.end).kind == "open" and not tokens[quantity.end].gap:
        group = _read_group(tokens, quantity.end, depth)
        if group is None:
            break
        quantity = _combine(quantity, _Operator("*", quantity.end, False), group)
    return quantity


def _read_power(tokens: Sequence[Token], start: int, depth: int) -> Quantity | None:
    base = _read_amount(tokens, start, depth)
    if base is None:
        return None
    power = get_token(tokens, base.end)
    if power.kind == "power" and not power.gap:
        exponent, end = power.value, base.end + 1
    elif found := _read_exponent(tokens, base.end):
        exponent, end = found
    else:
        return base
    return replace(base, value=_raise_to_power(base.value, exponent), end=end, step=None)


def _read_exponent(tokens: Sequence[Token], index: int) -> tuple[Fraction | None, int] | None:
    """Return the exponent after `^` or `**`, and the index after it."""
    if get_token(tokens, index).text not in ("^", "**"):
        return None
    is_braced = get_token(tokens, index + 1).text == "{"
    index += 1 + is_braced
    is_negative = get_token(tokens, index).text == "-"
    number = get_token(tokens, index + is_negative)
    end = index + is_negative + 1 + is_braced
    if number.kind != "numeral" or (is_braced and get_token(tokens, end - 1).text != "}"):
        return None
    value = number.value
    return (-value if is_negative and value is not None else value), end


def _raise_to_power(base: Fraction | None, exponent: Fraction | None) -> Fraction | None:
    if base is None or exponent is None or exponent.denominator != 1:
        return None
    n_digits = len(str(base)) * abs(exponent)
    if abs(exponent) > _MAX_EXPONENT or n_digits > MAX_DIGITS or (not base and exponent < 0):
        return None
    return base ** int(exponent)


def _read_amount(tokens: Sequence[Token], start: int, depth: int) -> Quantity | None:
    if get_token(tokens, start).kind == "open":
        return _read_group(tokens, start, depth)
    has_currency = get_token(tokens, start).kind == "currency"
    index = start + has_currency
    sign = -1 if has_currency and get_token(tokens, index).text == "-" else 1
    index += sign < 0
    number = _read_number(tokens, index)
    if number is None:
        return None
    value, end, numeral = number
    scale, end, is_exact = _read_scale(tokens, end, has_currency)
    after, second = get_token(tokens, end), get_token(tokens, end + 1)
    if not has_currency and after.kind == "currency" and (second.kind != "numeral" or second.gap):
        has_currency, end = True, end + 1
    is_percent = get_token(tokens, end).kind == "percent"
    step = Fraction(scale, 10**numeral.n_decimals) if numeral.n_decimals else None
    return Quantity(
        start, end + is_percent, None if value is None else sign * value * scale, step,
        is_percent=is_percent,
        is_certain=is_exact and (has_currency or is_percent or not numeral.has_decimal_comma),
    )  # fmt: skip


def _read_number(tokens: Sequence[Token], start: int) -> tuple[Fraction | None, int, Token] | None:
    """Return value and end of a numeral, fraction or mixed number, and the numeral itself."""
    first = get_token(tokens, start)
    if first.kind == "fraction":
        return first.value, start + 1, first
    if first.kind != "numeral":
        return None
    if (fraction := _read_fraction(tokens, start)) is not None:
        return *fraction, END_TOKEN
    if first.text.isdecimal() and first.value is not None:
        texts = [token.text.lower() for token in tokens[start + 1 : start + 4]]
        if texts == ["and", "a", "half"]:
            return first.value + Fraction(1, 2), start + 4, END_TOKEN
        index = start + 1 + (texts[:1] == ["and"])
        sign = get_token(tokens, index)
        if sign.kind == "fraction" and sign.value is not None:
            return first.value + sign.value, index + 1, END_TOKEN
        part = _read_fraction(tokens, index) if sign.gap else None
        if part and part[0] is not None:
            return first.value + part[0], part[1], END_TOKEN
    return first.value, start + 1, first


def _read_fraction(tokens: Sequence[Token], start: int) -> tuple[Fraction | None, int] | None:
    above, slash, below = (get_token(tokens, start + n) for n in range(3))
    is_fraction = above.kind == below.kind == "numeral" and slash.text == "/"
    if not is_fraction or "\n" in slash.gap + below.gap:
        return None
    is_list = above.has_decimal_comma or below.has_decimal_comma  # 7/4,7
    if above.value is None or not below.value or is_list:
        return None, start + 3
    return above.value / below.value, start + 3


def _read_scale(tokens: Sequence[Token], index: int, has_currency: bool) -> tuple[int, int, bool]:
    """Return the scale words as a factor, the index after them, and whether they are certain."""
    scale, is_certain = 1, True
    while (word := get_token(tokens, index)).kind == "word":
        if word.text.lower() in _SCALES:
            scale *= _SCALES[word.text.lower()]
        elif has_currency and scale == 1 and word.text.lower() in _CURRENCY_SCALES:
            if get_token(tokens, index + 1).text in ("/", "^"):
                break
            scale = _CURRENCY_SCALES[word.text.lower()]
        elif word.text == "k" and not word.gap and scale == 1:
            scale, is_certain = 1000, False
        else:
            break
        index += 1
    return scale, index, is_certain


def _read_group(tokens: Sequence[Token], start: int, depth: int) -> Quantity | None:
    inner = read_expression(tokens, start + 1, depth + 1) if depth < _MAX_DEPTH else None
    if inner is None or get_token(tokens, inner.end).kind != "close":
        return None
    return Quantity(
        start, inner.end + 1, inner.value, is_literal=False, is_percent=inner.is_percent
    )


def _combine(left: Quantity, operator: _Operator, right: Quantity) -> Quantity:
    is_difference = operator.symbol == "-" and not operator.is_spaced and right.is_literal
    return Quantity(
        left.start, right.end, _compute(left, operator.symbol, right), is_literal=False,
        is_difference=is_difference and (left.is_literal or left.is_difference),
        is_percent=left.is_percent or right.is_percent,
        is_certain=left.is_certain and right.is_certain,
    )  # fmt: skip


def _compute(left: Quantity, symbol: str, right: Quantity) -> Fraction | None:
    """Return the result; None for a division by zero and for percents of something."""
    a, b = left.value, right.value
    if a is None or b is None or (symbol == "/" and not b):
        return None
    if (left.is_percent or right.is_percent) and (symbol in "*/" or a != b):
        is_sum = symbol in "+-" and left.is_percent and right.is_percent
        if not is_sum:
            return None
    value = {"+": a + b, "-": a - b, "*": a * b, "/": a / (b or 1)}[symbol]
    return value if len(str(value)) <= MAX_DIGITS else None


def _read_list(tokens: Sequence[Token], quantity: Quantity) -> Quantity:
    """Return the quantity, without value if it goes on as a ratio, a time or a list: 3:1, 1,2,3."""
    while True:
        joint, after = get_token(tokens, quantity.end), get_token(tokens, quantity.end + 1)
        is_joint = joint.text in (":", ",", ".") and after.kind == "numeral"
        is_near = not joint.gap and not after.gap
        if not is_joint or not (is_near or (joint.text == ":" and joint.gap and after.gap)):
            return quantity
        quantity = replace(quantity, value=None, end=quantity.end + 2)
