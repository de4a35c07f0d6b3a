"""Rewrite the notations of numbers to one: digits, a decimal point, a sign, a fraction, `1e3`.

Rewritten are thousands separators of all kinds (1,00,000; 1'234; 1 234 567; 1.234,56), a decimal
comma (3,5), powers (10^6, 1.5 x 10^3), fraction signs (2½), a mixed number with "and", words
(twelve, minus 5), 72k, and a loss in parentheses ($(1,234)). What is ambiguous stays as it is.
"""

import re
import unicodedata

_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_WORDS = {word: n for n, word in enumerate(_UNITS.split())}
_WORDS |= {word: 10 * n for n, word in enumerate(_TENS.split(), 2)}
_WORD_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}

_CURRENCY = r"[$€£¥₹]"
_EUROPEAN = re.compile(r"(?<![\d.,])\d{1,3}(?:\.\d{3})+,\d{1,2}(?!\d|[.,]\d)")
_INDIAN = re.compile(r"(?<![\d.,])\d{1,2}(?:,\d{2})+,\d{3}(?!\d|,\d)")
_APOSTROPHES = re.compile(r"(?<![\d.,'’])\d{1,3}(?:['’]\d{3})+(?!\d)")
_SPACES = re.compile(
    r"((?:(?:about|around|approximately|nearly|USD|EUR)\s+)?[^\w]{0,3})"
    r"(\d{1,3}(?:[ \u00a0\u202f]\d{3})+)(?!\d|,\d)(.*)",
    re.DOTALL,
)
_DECIMAL_COMMA = re.compile(r"(?<![\d.,(\[])(\d+),(\d{1,2}|\d{4,})(?!\d|[.,]\d|[)\]])")
_ZERO_COMMA = re.compile(r"(?<![\d.,])0,(\d+)(?!\d|[.,]\d)")
_TIMES_POWER = re.compile(
    r"(\d)\s*(?:[*x×·]|\\times)\s*10\s*(?:\^|\*\*)\s*\{?([-+]?\d{1,3})\}?(?!\d)"
)
_POWER = re.compile(
    r"(?<![\w.,)*^])(\d{1,4})\s*(?:\^|\*\*)\s*\{?(\d{1,2})\}?(?![\d.]|\s*(?:\^|\*\*))"
)
_LOSS = re.compile(rf"({_CURRENCY}?)\s?\(({_CURRENCY}?\s?\d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?)\)(\D*)")
_CURRENCY_LOSS = re.compile(rf"({_CURRENCY})\s?\((\d[\d.]*)\)(\D*)")
_MAX_DIGITS = 60  # of a power that is written out


def normalize_numbers(text: str) -> str:
    """Return the text with every number in one notation; see the module.

    >>> normalize_numbers("1.234,56 €"), normalize_numbers("1.5 x 10^3"), normalize_numbers("2½")
    ('1234.56 €', '1.5e3', '2 1/2')
    >>> normalize_numbers("$(1,234) million"), normalize_numbers("minus twenty-five")
    ('-$1,234 million', '-25')
    """
    text = "".join(map(_expand_fraction_sign, text)).strip()
    text = re.sub(r" {2,}", " ", text)
    for pattern in (_LOSS, _CURRENCY_LOSS):
        if loss := pattern.fullmatch(text):
            text = f"-{loss[1]}{loss[2]}{loss[3]}"
    text = re.sub(r"(?i)^(?:negative|minus)\s+", "-", text)
    text = _EUROPEAN.sub(lambda m: m[0].replace(".", "").replace(",", "."), text)
    text = _INDIAN.sub(lambda m: m[0].replace(",", ""), text)
    text = _APOSTROPHES.sub(lambda m: re.sub("['’]", "", m[0]), text)
    if spaced := _SPACES.fullmatch(text):
        text = spaced[1] + re.sub(r"\s", "", spaced[2]) + spaced[3]
    text = _ZERO_COMMA.sub(r"0.\1", text)
    text = _DECIMAL_COMMA.sub(r"\1.\2", text)
    text = _TIMES_POWER.sub(r"\1e\2", text)
    text = _POWER.sub(_write_out_power, text)
    text = re.sub(r"\b(\d+)\s+and\s+(?=\d+\s?/\s?\d)", r"\1 ", text)
    text = re.sub(r"\b(\d+)\s+and\s+a\s+half\b", r"\1 1/2", text)
    text = re.sub(r"(?<=\d)k\b", " thousand", text)
    return _replace_leading_words(text)


def _expand_fraction_sign(character: str) -> str:
    if unicodedata.category(character) == "No" and "\u2044" in (
        expanded := unicodedata.normalize("NFKC", character)
    ):
        return f" {expanded.replace(chr(0x2044), '/')}"
    return character


def _write_out_power(match: re.Match[str]) -> str:
    value = str(int(match[1]) ** int(match[2]))
    return value if len(value) <= _MAX_DIGITS else match[0]


def _replace_leading_words(text: str) -> str:
    """Replace number words at the start of a text that has no digits."""
    sign = "-" if text.startswith("-") else ""
    words = re.split(r"[\s-]+", text.removeprefix("-").rstrip(" ."))
    if re.search(r"\d", text):
        return text
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
    return " ".join([f"{sign}{total + current}", *words[n_read:]]) if n_read else text
