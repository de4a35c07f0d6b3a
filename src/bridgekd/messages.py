"""Values and texts of users and servers in messages: short, on one line, printable."""

import re
import reprlib

MAX_SHOWN_CHARACTERS = 80
_MAX_MASKED = 4096
_CREDENTIALS = re.compile(r"(?<=://)\S*@")


class _ShortRepr(reprlib.Repr):
    """The repr of a value in a message. Its length and its work do not grow with the value."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = MAX_SHOWN_CHARACTERS
        self.maxlist = self.maxtuple = self.maxset = self.maxdict = 12

    def repr_str(self, x: str, level: int) -> str:
        start = x[:_MAX_MASKED]
        return super().repr_str(mask_credentials(start) if "://" in start else x, level)

    def repr_int(self, x: int, level: int) -> str:
        n_digits = int(abs(x).bit_length() * 0.30103) + 1
        return repr(x) if n_digits <= self.maxlong else f"a number of about {n_digits:,} digits"


_SHORT_REPR = _ShortRepr()


def format_value(value: object) -> str:
    """Return the repr of a value for a message: one line of at most 80 characters.

    >>> format_value(["a", None]), format_value(10**5000)
    ("['a', None]", 'a number of about 5,001 digits')
    """
    return format_text(_SHORT_REPR.repr(value))


def mask_credentials(address: str) -> str:
    """Return an address without its user and password.

    >>> mask_credentials("http://me:p@ss/word@proxy:3128")
    'http://[credentials]@proxy:3128'
    """
    credentials, at, host = address.rpartition("@")
    scheme, separator, _ = credentials.partition("://")
    start = f"{scheme}{separator}" if separator else ""
    return f"{start}[credentials]@{host}" if at else address


def format_text(text: str) -> str:
    """Return a text for a message: one line of at most 80 characters, all of them printable.

    An address has no user and password.
    >>> format_text("a\\x00b"), format_text("http://me:secret@host/v1")
    ('a\\\\x00b', 'http://[credentials]@host/v1')
    """
    start = _CREDENTIALS.sub("[credentials]@", text)[: MAX_SHOWN_CHARACTERS + 1]
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in start)
    is_short = len(line) <= MAX_SHOWN_CHARACTERS
    return line if is_short else f"{line[: MAX_SHOWN_CHARACTERS - 3]}..."
