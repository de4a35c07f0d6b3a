r"""Find the final answer in a model's text, and remove markup from it.

The places of an answer, from strong to weak: after the last mark (`Answer:`, `####`), in the last
`\boxed{...}`, after the last "the answer is". For any other text, the grader decides.
"""

import re

from bridgekd.prompts import ANSWER_PREFIX

_MARK = re.compile(rf"{ANSWER_PREFIX.rstrip(':')}\s*\**\s*:\s*\**|####\s*", re.IGNORECASE)
_STATED = re.compile(
    r"\b(?:answer|(?:correct|right|best|final)\s+(?:answer\s+)?(?:choice|option|result|statement))"
    r"(?:\s+(?:choice|option))?\s+(?:is|was|would\s+be|will\s+be)\b\s*:?\s*(?=\S)",
    re.IGNORECASE,
)  # not "must be": a text writes what an answer must be before it has the answer
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
_LATEX_SYMBOLS = (
    ("{,}", ","), ("\\$", "$"), ("\\%", "%"), ("\\times", "*"), ("\\cdot", "*"), ("\\div", "/"),
    ("\\,", ""), ("\\!", ""), ("\\;", " "), ("\\ ", " "), ("\\(", " "), ("\\)", " "),
    ("\\[", " "), ("\\]", " "), ("×", "*"), ("÷", "/"), ("\N{MINUS SIGN}", "-"),
    ("\N{EN DASH}", "-"), ("\N{NO-BREAK SPACE}", " "),
)  # fmt: skip


def split_answer(text: str) -> tuple[str, str]:
    """Return the text before the last mark as the rationale, and the answer as written.

    Without a mark the rationale is the complete text, and the answer is the boxed answer in it,
    else the stated one, else "".
    >>> split_answer("3 + 4 = 7.\\nAnswer: 7")
    ('3 + 4 = 7.', '7')
    """
    if (marked := find_marked_answer(text)) is not None:
        return marked[0].strip(), marked[1]
    return text.strip(), find_boxed_answer(text).strip() or find_stated_answer(text)


def find_marked_answer(text: str) -> tuple[str, str] | None:
    """Return the text before the last mark and the first line with a word after it, or None."""
    *_, mark = [None, *_MARK.finditer(text)]
    if mark is None:
        return None
    lines = _list_lines_with_words(text[mark.end() :])
    return text[: mark.start()].rstrip(" \t\r\n*#"), lines[0].strip() if lines else ""


def find_boxed_answer(text: str) -> str:
    r"""Return the content of the last `\boxed{...}`; "" if there is none or it is not closed."""
    boxes = list(_BOXED.finditer(text))
    return _read_braces(text, boxes[-1].end())[0] if boxes else ""


def find_stated_answer(text: str) -> str:
    """Return the text from the last "the answer is" to the end of its sentence, or ""."""
    matches = list(_STATED.finditer(text))
    if not matches:
        return ""
    return _SENTENCE_END.split(text[matches[-1].end() :].splitlines()[0])[0].strip()


def is_refusal(text: str) -> bool:
    """Return whether the text declines to answer."""
    return _REFUSES.search(text) is not None


def get_last_sentence(text: str) -> str:
    """Return the last sentence of the last line with a word, or ""."""
    last_lines = _list_lines_with_words(text)[-1:]
    parts = [part for line in last_lines for part in _SENTENCE_END.split(line)]
    return next((part.strip() for part in reversed(parts) if re.search(r"\w", part)), "")


def strip_markup(text: str) -> str:
    r"""Return the text without LaTeX, emphasis and special characters.

    >>> strip_markup(r"\boxed{\frac{1}{2}}")
    '1/2'
    """
    for _ in range(3):  # up to three levels, such as a fraction in a text in a box
        if (match := _STYLED.search(text)) is None:
            break
        inner, end = _read_braces(text, match.end())
        text = text[: match.start()] + inner + text[end:]
    text = _FRACTION.sub(lambda m: f" {m[1] or m[2]}/{m[3] or m[4]}", text)
    for symbol, meaning in _LATEX_SYMBOLS:
        text = text.replace(symbol, meaning)
    text = re.sub(r"(?<!\d)\*\*|\*\*(?!\d)|(?<!\w)`|`(?!\w)", "", text)
    return re.sub(r"\$(?!\s?[\d.])", "", text).strip()


def _list_lines_with_words(text: str) -> list[str]:
    return [line for line in text.splitlines() if re.search(r"\w", line)]


def _read_braces(text: str, start: int) -> tuple[str, int]:
    """Return content and end of the braces opened at `start`; ("", length) if never closed."""
    depth = 0
    for index in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return text[start + 1 : index], index + 1
    return "", len(text)
