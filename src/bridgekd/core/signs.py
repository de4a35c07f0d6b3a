r"""Where in a model's text its final answer stands, and what it is without its typography.

Signs from strong to weak: the last mark (`Answer:`, `####`), the last `\boxed{...}`, the last "the
answer is ...". What remains without any of them is for the kind of answer to say.
"""

import re

from bridgekd.core.prompts import ANSWER_MARK

_MARK = re.compile(rf"{ANSWER_MARK.rstrip(':')}\s*\**\s*:\s*\**|####\s*", re.IGNORECASE)
_SAID = re.compile(
    r"\b(?:answer|(?:correct|right|best|final)\s+(?:answer\s+)?(?:choice|option|result|statement))"
    r"(?:\s+(?:choice|option))?\s+(?:is|was|would\s+be|will\s+be)\b\s*:?\s*(?=\S)",
    re.IGNORECASE,
)  # not "must be": what an answer must be is said before it is found
_REFUSES = re.compile(
    r"\s*(?:i['’]?m\s+(?:very\s+)?sorry|sorry|i\s+apologi[sz]e|as\s+an\s+ai|unfortunately,?\s+i\s)"
    r"|\bi\s*(?:['’]m|\s+am)\s+(?:unable|not\s+able)\b"
    r"|\bi\s+(?:can(?:no|['’])t|could\s+not|won['’]t)\s+(?:help|assist|answer|provide|solve|"
    r"determine|comply)",
    re.IGNORECASE,
)
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*(?=\{)")
_STYLED = re.compile(r"\\(?:boxed|fbox|text|textbf|mathrm|mathbf|mbox)\s*(?=\{)")
_FRACTION = re.compile(r"\\[dt]?frac\s*(?:\{([^{}]*)\}|(\d))\s*(?:\{([^{}]*)\}|(\d))")
_SENTENCE_END = re.compile(r"(?<=[^\s.])[.!?](?=\s+[A-Z\"“(])")
_SPELLED = (
    ("{,}", ","), ("\\$", "$"), ("\\%", "%"), ("\\times", "*"), ("\\cdot", "*"), ("\\div", "/"),
    ("\\,", ""), ("\\!", ""), ("\\;", " "), ("\\ ", " "), ("\\(", " "), ("\\)", " "),
    ("\\[", " "), ("\\]", " "), ("×", "*"), ("÷", "/"), ("\N{MINUS SIGN}", "-"),
    ("\N{EN DASH}", "-"), ("\N{NO-BREAK SPACE}", " "),
)  # fmt: skip


def marked(text: str) -> tuple[str, str] | None:
    """(all before the last mark, the first line behind it that says anything); None without."""
    marks = list(_MARK.finditer(text))
    if not marks:
        return None
    lines = [line.strip() for line in text[marks[-1].end() :].splitlines()]
    worded = [line for line in lines if re.search(r"\w", line)]
    return text[: marks[-1].start()].rstrip(" \t\r\n*#"), worded[0] if worded else ""


def boxed(text: str) -> str:
    r"""What the last `\boxed{...}` holds; "" without one that is closed."""
    boxes = list(_BOXED.finditer(text))
    return _braced(text, boxes[-1].end())[0] if boxes else ""


def said(text: str) -> str:
    """What the last "the answer is ..." says, to the end of its sentence; "" without one."""
    found = list(_SAID.finditer(text))
    if not found:
        return ""
    return _SENTENCE_END.split(text[found[-1].end() :].splitlines()[0])[0].strip()


def refuses(text: str) -> bool:
    """Whether the text declines to answer."""
    return _REFUSES.search(text) is not None


def last_sentence(text: str) -> str:
    """The last sentence of the last line that says anything."""
    lines = [line for line in text.splitlines() if re.search(r"\w", line)]
    if not lines:
        return ""
    parts = [part for part in _SENTENCE_END.split(lines[-1]) if re.search(r"\w", part)]
    return parts[-1].strip()


def plain(text: str) -> str:
    """The text without LaTeX, emphasis and exotic signs: `$\\frac{1}{2}$` is `1/2`."""
    for _ in range(3):  # a fraction in a text in a box
        if (found := _STYLED.search(text)) is None:
            break
        inner, end = _braced(text, found.end())
        text = text[: found.start()] + inner + text[end:]
    text = _FRACTION.sub(lambda m: f" {m[1] or m[2]}/{m[3] or m[4]}", text)
    for spelled, meant in _SPELLED:
        text = text.replace(spelled, meant)
    text = re.sub(r"(?<!\d)\*\*|\*\*(?!\d)|(?<!\w)`|`(?!\w)", "", text)
    return re.sub(r"\$(?!\s?[\d.])", "", text).strip()


def _braced(text: str, start: int) -> tuple[str, int]:
    """(what the braces opened at `start` hold, where they end); ("", end of text) if unclosed."""
    depth = 0
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start + 1 : place], place + 1
    return "", len(text)
