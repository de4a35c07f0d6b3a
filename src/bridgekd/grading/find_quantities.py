"""Find the numbers and the arithmetic expressions in the tokens of a text.

A quantity has no value if it is a part of something else: of an expression with variables or words
(2x; 4 + some more), of a function, of a text that is cut off. No part is ever read as a number.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from bridgekd.grading.number_grammar import (
    BY_OPERATORS,
    END_TOKEN,
    Quantity,
    get_token,
    read_expression,
    read_operator,
    skip_exponent,
)
from bridgekd.grading.number_tokens import Token

UNIT_LETTERS = frozenset("mgshdlLCFVWNJ")  # directly after a number; others are variables
_NO_VARIABLES = frozenset("aAI")
_MAX_UNIT_WORDS = 3  # between a number and an operator
_LATEX_WORDS = (
    "sqrt pi theta alpha beta sin cos tan log ln frac dfrac tfrac cfrac binom cdot times div pm "
    "left cup cap"
)
_LATEX_FACTORS = frozenset(_LATEX_WORDS.split())


def find_quantities(tokens: Sequence[Token]) -> Iterator[Quantity]:
    """Yield the quantities of a text in order."""
    index = 0
    while index < len(tokens):
        if tokens[index].kind == "word":
            index = skip_exponent(tokens, index + 1)
            continue
        quantity = None
        if tokens[index].text not in ("+", "-") or _is_sign(tokens, index):
            quantity = read_expression(tokens, index)
        if quantity is None:
            index += 1
            continue
        is_part = _follows_operand(tokens, quantity) or _goes_on(tokens, quantity)
        yield replace(quantity, value=None) if is_part else quantity
        index = quantity.end


def _is_sign(tokens: Sequence[Token], index: int) -> bool:
    """Return whether + or - is a sign: "is -5", and not "x-5", "a - 5" or a bullet."""
    token, before = tokens[index], get_token(tokens, index - 1)
    if index == 0 or before.kind in ("equals", "open"):
        return True
    is_near = not get_token(tokens, index + 1).gap
    if is_near and before.kind == "other" and before.text not in "]}":
        return True
    return is_near and bool(token.gap) and before.kind != "operator"


def _is_variable(token: Token) -> bool:
    return token.kind == "word" and len(token.text) == 1 and token.text not in _NO_VARIABLES


def _follows_operand(tokens: Sequence[Token], quantity: Quantity) -> bool:
    """Return whether an expression has begun before the quantity: x - 5, sqrt(16), some + 4."""
    first, before = tokens[quantity.start], get_token(tokens, quantity.start - 1)
    left = get_token(tokens, quantity.start - 2)
    if before.text in ("{", "["):
        return left.kind == "word" or left.text in ("\\", "]", "^", "_")
    if first.kind == "open" and not first.gap and before.kind == "word":
        return True
    if before.text in ("^", "**", "_", "√", "±"):
        return True
    is_bullet = quantity.start == 1 or "\n" in before.gap + first.gap
    if before.kind != "operator" or is_bullet:
        return False
    if before.text != "-" or _is_variable(left):
        return True
    return left.kind == "word" and _is_in_group(tokens, quantity.start)


def _is_in_group(tokens: Sequence[Token], index: int) -> bool:
    """Return whether the last parenthesis before a token is an opening one."""
    kinds = (token.kind for token in reversed(tokens[:index]))
    return next((kind for kind in kinds if kind in ("open", "close")), "close") == "open"


def _goes_on(tokens: Sequence[Token], quantity: Quantity) -> bool:
    """Return whether an expression goes on after the quantity: 5x, 4 + some more, 9 * \\sqrt{2}."""
    after, second = get_token(tokens, quantity.end), get_token(tokens, quantity.end + 1)
    if after.text in ("^", "**", "_", "√", "±") or (after.kind == "open" and not after.gap):
        return True
    if after.text == "\\":
        return second.text in _LATEX_FACTORS
    if _is_variable(after) and not after.gap:
        return after.text not in UNIT_LETTERS
    if "\n" in after.gap + (second.gap if second is not END_TOKEN else ""):
        return False
    if after.kind == "operator":
        if after.text in ("-", "/") and second.kind == "word":
            return _is_variable(second) and not (after.text == "/" and second.text in UNIT_LETTERS)
        is_cut_off = second is END_TOKEN and bool(after.gap)
        is_operand = second.kind in ("word", "open", "numeral", "currency")
        return is_cut_off or is_operand or second.text == "\\"
    if after.text.lower() in ("plus", "minus", *BY_OPERATORS):
        return True
    return _adds_units(tokens, quantity.end)


def _adds_units(tokens: Sequence[Token], index: int) -> bool:
    """Return whether words and an operator with a number follow: 5 apples + 3, 60 miles / 2."""
    ends = range(index, index + _MAX_UNIT_WORDS + 1)
    end = next((i for i in ends if read_operator(tokens, i, "+-*/")), index)
    operator = read_operator(tokens, end, "+-*/")
    if operator is None or any(token.kind != "word" for token in tokens[index:end]):
        return False
    right = get_token(tokens, operator.end)
    if operator.symbol != "-":
        return right.kind in ("numeral", "currency")
    # "5 apples - 2 apples" is a difference; "5 apples - 2 of them red" has an explanation.
    return (
        right.kind == "numeral" and get_token(tokens, operator.end + 1).text == tokens[end - 1].text
    )
