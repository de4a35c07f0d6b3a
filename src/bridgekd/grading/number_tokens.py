"""Split a text without markup into tokens: numerals, operators, words.

A numeral is read in every notation that is not ambiguous: thousands separators of all kinds
(1,234; 1,00,000; 1'234; 1.234.567; 1 234 567 at the start), a decimal comma (3,5; 1.234,56), an
exponent, a fraction sign, and, where a text has no digits, words at its start (twelve; minus five).
`1,234` is a thousand, `1.234` has three decimals, and `1,2,3` is a list.
"""

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

Kind = Literal[
    "numeral", "fraction", "power", "operator", "equals", "open", "close", "currency", "percent",
    "word", "other",
]  # fmt: skip
_KINDS: tuple[Kind, ...] = get_args(Kind)
MAX_DIGITS = 200  # of a number; more are no answer, and their arithmetic takes minutes

_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_WORDS = {word: n for n, word in enumerate(_UNITS.split())}
_WORDS |= {word: 10 * n for n, word in enumerate(_TENS.split(), 2)}
_WORD_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
_FRACTION_WORD = re.compile(
    r"(?:hal(?:f|ves)|(?:third|fourth|quarter|fifth|sixth|seventh|eighth|ninth|tenth)s?|point)\b"
)

_SUPERSCRIPTS = "\u2070\u00b9\u00b2\u00b3\u2074-\u2079"
_FRACTION_SIGNS = "\u00bc-\u00be\u2150-\u215e"
_ENDS = r"(?!\d|[.,]\d)"
_NUMERALS = {  # by how they are converted; the first that matches counts
    "point_groups": rf"(?<![\d.,])\d{{1,3}}(?:(?:\.\d{{3}})+,\d{{1,2}}|(?:\.\d{{3}}){{2,}}){_ENDS}",
    "comma_groups": r"(?:(?<![\d.,])\d{1,2}(?:,\d{2})+,\d{3}(?!\d|,\d)|\d{1,3}(?:,\d{3})+(?!\d))"
    r"(?:\.\d+)?",
    "quote_groups": r"(?<![\d.,'’])\d{1,3}(?:['’]\d{3})+(?!\d)(?:\.\d+)?",
    "space_groups": r"\d{1,3}(?:[ \u00a0\u202f]\d{3})+(?!\d)(?:[.,]\d{1,2}(?!\d))?(?!,\d)",
    "decimal_comma": rf"(?<![\d.,(\[])(?:0,\d+|\d+,(?:\d{{1,2}}|\d{{4,}})){_ENDS}(?![)\]])",
    "plain": r"\d+(?:\.\d+)?|(?<!\d)\.\d+",
}
_NUMERAL = "|".join(rf"(?P<{name}>{pattern})" for name, pattern in _NUMERALS.items())
_TOKEN = re.compile(
    rf"(?P<numeral>(?:{_NUMERAL})(?P<exponent>[eE][-+]?\d+(?!\w))?)"
    rf"|(?P<fraction>[{_FRACTION_SIGNS}])|(?P<power>\u207b?[{_SUPERSCRIPTS}]+)"
    r"|(?P<operator>\*\*|[-+*/^·]|(?<=\d)[xX](?=\d))|(?P<equals>[=≈])|(?P<open>\()|(?P<close>\))"
    r"|(?P<currency>[$€£¥₹])|(?P<percent>%)"
    rf"|(?P<word>[^\W\d_{_SUPERSCRIPTS}{_FRACTION_SIGNS}]+(?:\d\w*)?)|(?P<other>\S)"
)
# Groups with spaces are one number only at the start: "3 100 dollar bills" may be in a sentence.
_BEFORE_SPACES = re.compile(
    r"(?:(?:about|around|approximately|nearly|USD|EUR)\s+)?[^\w]{0,3}", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Token:
    """A part of a text. `value` and `n_decimals` are those of a numeral, fraction or power.

    gap: the white space before it. value: None for other kinds, and for a number without end.
    has_decimal_comma: whether the numeral could be a list of two as well.
    """

    kind: Kind
    text: str
    gap: str
    value: Fraction | None = None
    n_decimals: int = 0
    has_decimal_comma: bool = False


def read_tokens(text: str) -> list[Token]:
    """Return the tokens of a text.

    >>> [str(t.value or t.text) for t in read_tokens("1.234,56 € / 2½")]
    ['30864/25', '€', '/', '2', '1/2']
    """
    text = replace_leading_words(text.strip())
    tokens, end = [], 0
    while match := _TOKEN.search(text, end):
        if match["space_groups"] and not _BEFORE_SPACES.fullmatch(text[: match.start()]):
            first = re.split(r"\s", match[0])[0]
            match = _TOKEN.match(text, match.start(), match.start() + len(first)) or match
        tokens.append(_make_token(match, text[end : match.start()]))
        end = match.end()
    return tokens


def replace_leading_words(text: str) -> str:
    """Return a text without digits with the number at its start in digits; others as they are.

    >>> replace_leading_words("minus twenty-five degrees"), replace_leading_words("two thirds")
    ('-25 degrees', 'two thirds')
    """
    text = re.sub(r"(?i)^(?:negative|minus)\s+", "-", text)
    sign = "-" if text.startswith("-") else ""
    if re.search(r"\d", text):
        return text
    words = re.split(r"[\s-]+", text.removeprefix("-").rstrip(" ."))
    total = current = n_read = 0
    for word in (word.lower() for word in words):
        if word in _WORDS:
            current += _WORDS[word]
        elif word in _WORD_SCALES and n_read:
            current *= _WORD_SCALES[word]
            if word != "hundred":
                total, current = total + current, 0
        elif word != "and" or not n_read:
            break
        n_read += 1
    if not n_read or any(map(_FRACTION_WORD.match, words[n_read : n_read + 1])):
        return text
    return " ".join([f"{sign}{total + current}", *words[n_read:]])


def _make_token(match: re.Match[str], gap: str) -> Token:
    kind: Kind = next(kind for kind in _KINDS if match[kind])
    written = match[0]
    if kind == "power":
        digits = unicodedata.normalize("NFKC", written).replace("\N{MINUS SIGN}", "-")
        return Token(kind, written, gap, Fraction(digits) if len(digits) <= MAX_DIGITS else None)
    if kind == "fraction":
        above, _, below = unicodedata.normalize("NFKC", written).partition("\u2044")
        return Token(kind, written, gap, Fraction(int(above), int(below)))
    if kind != "numeral":
        return Token(kind, written, gap)
    plain = written
    if match["point_groups"]:
        plain = written.replace(".", "").replace(",", ".")
    elif match["comma_groups"]:
        plain = written.replace(",", "")
    elif match["quote_groups"] or match["space_groups"]:
        plain = re.sub(r"['’\s]", "", written).replace(",", ".")
    elif match["decimal_comma"]:
        plain = written.replace(",", ".")
    exponent = match["exponent"] or ""
    is_bounded = len(plain) <= MAX_DIGITS and len(exponent.lstrip("eE+-0")) <= 3
    decimals = plain.removesuffix(exponent).partition(".")[2]
    return Token(
        kind, written, gap, Fraction(plain) if is_bounded else None,
        0 if exponent or not decimals.strip("0") else len(decimals), bool(match["decimal_comma"]),
    )  # fmt: skip
