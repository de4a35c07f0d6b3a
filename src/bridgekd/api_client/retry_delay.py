"""How long a server asks to wait: in its headers, in fields of its error, or in a sentence."""

import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

MAX_HINT_S = 60.0  # a rate limit's reset header is a hint: a daily limit names hours

# The units of a duration in their order, each with its seconds.
_UNITS = {
    "days?|d": 86_400,
    "hours?|hrs?|h": 3600,
    "minutes?|mins?|m": 60,
    "seconds?|secs?|s": 1,
    "milliseconds?|ms": 0.001,
}
_DURATION = "(?=[0-9])" + "".join(
    rf"(?:([0-9]+(?:\.[0-9]+)?)\s*(?:{unit})(?![a-z])(?:[\s,]|and)*)?" for unit in _UNITS
)
_DURATION_TEXT = re.compile(_DURATION, re.IGNORECASE)
_RETRY_SENTENCE = re.compile(
    rf"\b(?:again|retry|wait)\b(?:\s|\b(?:in|after|for|about|at least|another)\b)*{_DURATION}",
    re.IGNORECASE,
)


def parse_duration(text: str) -> float | None:
    """Return the seconds of a duration with units; None for anything else.

    >>> parse_duration("1h2m3.5s"), parse_duration("500ms"), parse_duration("2 minutes")
    (3723.5, 0.5, 120.0)
    """
    return _sum_parts(_DURATION_TEXT.fullmatch(text.strip()))


def find_header_delay(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of Retry-After: a number, or a date by the server's own clock."""
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        date = _parse_date(value)
        now = _parse_date(headers.get("date", "")) or time.time()
        seconds = math.nan if date is None else date - now
    return max(0.0, seconds) if math.isfinite(seconds) else None


def find_body_delay(error: Mapping[str, object], message: str) -> float | None:
    """Return the seconds of Google's RetryInfo, else of a sentence such as "try again in 1m3s"."""
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        delay = detail.get("retryDelay") if isinstance(detail, dict) else None
        if isinstance(delay, str) and (seconds := parse_duration(delay)) is not None:
            return seconds
    return _sum_parts(_RETRY_SENTENCE.search(message))


def find_reset_delay(headers: Mapping[str, str]) -> float | None:
    """Return the seconds until a limit that is used up is reset, at most MAX_HINT_S."""
    for limit in ("requests", "tokens"):
        if headers.get(f"x-ratelimit-remaining-{limit}") == "0":
            hint = parse_duration(headers.get(f"x-ratelimit-reset-{limit}", ""))
            return None if hint is None else min(hint, MAX_HINT_S)
    return None


def _sum_parts(match: re.Match[str] | None) -> float | None:
    if match is None or not any(match.groups()):
        return None
    parts = zip(match.groups(), _UNITS.values(), strict=True)
    return sum(float(part or 0) * unit for part, unit in parts)


def _parse_date(text: str) -> float | None:
    """Return an HTTP date in seconds of the epoch; None for anything else."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
