r"""Where the final answer is in a model's text, and what it is without markup.

An answer is stated, from strong to weak, after the last mark (`Answer:`, `####`), in the last
`\boxed{...}`, or after the last "the answer is". What a text without any of these answers is for
the grader to decide.
"""

import re

from bridgekd.prompts import ANSWER_PREFIX

_MARK = re.compile(rf"{ANSWER_PREFIX.rstrip(':')}\s*\**\s*:\s*\**|####\s*", re.IGNORECASE)
_STATED = re.compile(
    r"\b(?:answer|(?:correct|right|best|final)\s+(?:answer\s+)?(?:choice|option|result|statement))"
    r"(?:\s+(?:choice|option))?\s+(?:is|was|would\s+be|will\s+be)\b\s*:?\s*(?=\S)",
    re.IGNORECASE,
)  # not "must be": a text states what an answer must be before it finds it
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
    """Return the rationale and the answer as written: the text is cut at the last mark.

    Without a mark the rationale is the complete text, and the answer is what is boxed or stated in
    it, or "".
    >>> split_answer("3 + 4 = 7.\\nAnswer: 7")
    ('3 + 4 = 7.', '7')
    """
    if (marked := find_marked_answer(text)) is not None:
        return marked[0].strip(), marked[1]
    return text.strip(), find_boxed_answer(text).strip() or find_stated_answer(text)


def find_marked_answer(text: str) -> tuple[str, str] | None:
    """Return the text before the last mark and the first line with a word after it, or None."""
    marks = list(_MARK.finditer(text))
    if not marks:
        return None
    lines = [line.strip() for line in text[marks[-1].end() :].splitlines()]
    with_words = [line for line in lines if re.search(r"\w", line)]
    return text[: marks[-1].start()].rstrip(" \t\r\n*#"), with_words[0] if with_words else ""


def find_boxed_answer(text: str) -> str:
    r"""Return the content of the last `\boxed{...}`; "" if there is none or it is not closed."""
    boxes = list(_BOXED.finditer(text))
    return _read_braces(text, boxes[-1].end())[0] if boxes else ""


def find_stated_answer(text: str) -> str:
    """Return what follows the last "the answer is", to the end of its sentence, or ""."""
    matches = list(_STATED.finditer(text))
    if not matches:
        return ""
    return _SENTENCE_END.split(text[matches[-1].end() :].splitlines()[0])[0].strip()


def is_refusal(text: str) -> bool:
    """Return whether the text declines to answer."""
    return _REFUSES.search(text) is not None


def get_last_sentence(text: str) -> str:
    """Return the last sentence of the last line with a word, or ""."""
    lines = [line for line in text.splitlines() if re.search(r"\w", line)]
    if not lines:
        return ""
    parts = [part for part in _SENTENCE_END.split(lines[-1]) if re.search(r"\w", part)]
    return parts[-1].strip()


def strip_markup(text: str) -> str:
    r"""Return the text without LaTeX, emphasis and special signs.

    >>> strip_markup(r"\boxed{\frac{1}{2}}")
    '1/2'
    """
    for _ in range(3):  # a fraction in a text in a box
        if (match := _STYLED.search(text)) is None:
            break
        inner, end = _read_braces(text, match.end())
        text = text[: match.start()] + inner + text[end:]
    text = _FRACTION.sub(lambda m: f" {m[1] or m[2]}/{m[3] or m[4]}", text)
    for symbol, meaning in _LATEX_SYMBOLS:
        text = text.replace(symbol, meaning)
    text = re.sub(r"(?<!\d)\*\*|\*\*(?!\d)|(?<!\w)`|`(?!\w)", "", text)
    return re.sub(r"\$(?!\s?[\d.])", "", text).strip()


def _read_braces(text: str, start: int) -> tuple[str, int]:
    """Return content and end of the braces opened at `start`; ("", length) if not closed."""
    depth = 0
    for index in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return text[start + 1 : index], index + 1
    return "", len(text)
