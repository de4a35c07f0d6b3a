"""Removes a key from text of a server, in every spelling that a decoder would turn back into it.

A server may repeat the key that it received: escaped as JSON, HTML or URL, in upper case, as
base64, or in part. The escapes are decoded with the place of each character, so the text around a
removed part keeps its spelling, and JSON stays JSON.
"""

import base64
import re
from collections.abc import Iterator
from html import unescape

REDACTED_KEY = "[key]"
MIN_SECRET_LENGTH = 8  # a shorter key is no secret and may be part of an answer
MIN_PART_LENGTH = 12  # of a key; a shorter part may be part of an answer
# More than one backslash: JSON in a string of JSON.
_ESCAPES = re.compile(
    r"\\+u(?P<json>[0-9a-fA-F]{4})|\\+(?P<slash>/)|%(?P<url>[0-9a-fA-F]{2})"
    r"|(?P<html>&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|\w{2,8});)"
)


class KeyRedactor:
    """Replaces a key, and every part of it with at least MIN_PART_LENGTH characters.

    >>> KeyRedactor("sk-0123456789").redact('you sent SK\\u002d0123456789!')
    'you sent [key]!'
    """

    def __init__(self, key: str) -> None:
        spellings = list_spellings(key) if len(key) >= MIN_SECRET_LENGTH else []
        self._parts = sorted({part for spelling in spellings for part in _list_parts(spelling)})
        # Every part has one of these pieces, which are fewer.
        self._pieces = sorted({s[i : i + 6] for s in spellings for i in range(0, len(s) - 5, 6)})

    def redact(self, text: str) -> str:
        """Return the text without the key."""
        decoded = _fold(_ESCAPES.sub(_decode, text))
        if not any(piece in decoded for piece in self._pieces):
            return text
        places = list(_list_places(text))
        is_key = bytearray(len(decoded))
        for part in self._parts:
            start = decoded.find(part)
            while start >= 0:
                is_key[start : start + len(part)] = b"\1" * len(part)
                start = decoded.find(part, start + 1)
        kept, end = [], 0
        for run in re.finditer(b"\1+", bytes(is_key)):
            kept += [text[end : places[run.start()][0]], REDACTED_KEY]
            end = places[run.end() - 1][1]
        return "".join([*kept, text[end:]])


def list_spellings(key: str) -> list[str]:
    """Return the key, and the part of its base64 at any offset that it alone decides, folded."""
    raw = key.encode()
    spellings = {key}
    for shift, n_unclear in ((0, 0), (1, 2), (2, 3)):  # the bytes before decide these characters
        encoded = base64.b64encode(bytes(shift) + raw).decode()
        clear = encoded[n_unclear : (shift + len(raw)) * 8 // 6]
        spellings |= {clear, clear.replace("+", "-").replace("/", "_")}
    return [_fold(spelling) for spelling in spellings]


def _list_parts(spelling: str) -> Iterator[str]:
    n = min(MIN_PART_LENGTH, len(spelling))
    return (spelling[i : i + n] for i in range(len(spelling) - n + 1))


def _fold(text: str) -> str:
    """Return the text in lower case, with one character for each."""
    lower = text.lower()
    return lower if len(lower) == len(text) else "".join(c.lower()[0] for c in text)


def _decode(escape: re.Match[str]) -> str:
    """Return the one character of an escape; an HTML entity of another length as it is."""
    if code := escape["json"] or escape["url"]:
        return chr(int(code, 16))
    character = escape["slash"] or unescape(escape["html"])
    return character if len(character) == 1 else escape[0]


def _list_places(text: str) -> Iterator[tuple[int, int]]:
    """Yield where each character of the decoded text is in the text, as start and end."""
    end = 0
    for escape in _ESCAPES.finditer(text):
        yield from ((i, i + 1) for i in range(end, escape.start()))
        if len(_decode(escape)) == 1:
            yield escape.span()
            end = escape.end()
        else:
            end = escape.start()
    yield from ((i, i + 1) for i in range(end, len(text)))
