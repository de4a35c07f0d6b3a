r"""Find the final answer in a model's text, and remove markup from it.

The places of an answer, from strong to weak: the field `answer` of a JSON object, after the last
mark (`Answer:`, `####`, `<answer>`), in the last `\boxed{...}`, after the last "the answer is". For
any other text, the grader decides. The content of `<think>` and of every channel except `final` is
reasoning: it holds no answer.
"""

import json
import re
import unicodedata
from dataclasses import dataclass

from bridgekd.prompts import ANSWER_PREFIX

_MARK_WORDS = (
    ANSWER_PREFIX.rstrip(":"), "Antwort", "R(?:é|e\u0301)ponse", "Respuesta", "Resposta",
    "Risposta", "Ответ", "答案", "答え",
)  # fmt: skip
_MARK = re.compile(
    rf"(?:final\s+)?(?:{'|'.join(_MARK_WORDS)})\s*\**\s*[:：]\s*\**|####\s*|<answer>", re.IGNORECASE
)
_THINK = re.compile(r"<(/?)(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)[^\n]*?<\|message\|>")  # Harmony, of gpt-oss
_CONTROL_TOKEN = re.compile(
    r"<\|start\|>(?:\s*assistant)?|<\|(?:end|return|call|message|channel|constrain)\|>"
)
_FENCE = re.compile(r"```(?:json)?\s*(\{.*?)(?:```\s*)?$", re.DOTALL)
_ANSWER_FIELDS = ("answer", "final_answer")
_ANSWER_FIELD = re.compile(
    rf'"(?:{"|".join(_ANSWER_FIELDS)})"\s*:\s*("(?:[^"\\]|\\.)*"|-?\d[\d.,]*\d|\d)',
    re.IGNORECASE,
)
_FIELD = re.compile(r'\s*[{,]\s*"\w+"\s*:')
_REASONING_FIELDS = ("rationale", "reasoning", "explanation", "thought", "solution", "steps")
_STATED = re.compile(
    r"\b(?:answer(?:\s+to\s+(?:the|this|your)\s+question)?"
    r"|(?:correct|right|best|final)\s+(?:answer\s+)?(?:choice|option|result|statement))"
    r"(?:\s+(?:choice|option))?\s+(?:is|was|would\s+be|will\s+be)\b\s*:?\s*(?=\S)(?!not\b)"
    r"|答案\s*(?:是|为)\s*(?=\S)",
    re.IGNORECASE,
)  # not "must be": a text writes what an answer must be before it has the answer
_REFUSES = re.compile(
    r"(?:i['’]?m\s+(?:very\s+)?sorry|sorry|i\s+apologi[sz]e|as\s+an\s+ai|unfortunately,?\s+i\s)"
    r"|\bi\s*(?:['’]m|\s+am)\s+(?:unable|not\s+able)\b"
    r"|\bi\s+(?:can(?:no|['’])t|could\s+not|won['’]t)\s+(?:help|assist|answer|provide|solve|"
    r"determine|comply)",
    re.IGNORECASE,
)
# What stands after a mark and is no answer: the question again, the task, or a heading.
_PROMPT = re.compile(
    r":$|\?(?:\s*\([^()]*\))?$|(?:^|,\s)(?:please\s+)?(?:calculate|compute|determine|find)\b",
    re.IGNORECASE,
)
_CONCLUSION = (
    r"(?:(?:so|therefore|thus|hence),?\s+)?the (?:\w+ )?answer is "
    r"(?!(?:not|right|correct|wrong|incorrect|consistent|reasonable)\b)"
)
_LAST_STATEMENT = re.compile(
    rf"(?:\n[\s*]*{_CONCLUSION}.+|[.!?)]\s+{_CONCLUSION}.{{1,60}})$", re.IGNORECASE
)
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*(?=\{)")
_STYLED = re.compile(r"\\(?:boxed|fbox|text|textbf|mathrm|mathbf|mbox)\s*(?=\{)")
_FRACTION = re.compile(r"\\[dt]?frac\s*(?:\{([^{}]*)\}|(\d))\s*(?:\{([^{}]*)\}|(\d))")
_SENTENCE_END = re.compile(r"(?<=[^\s.])(?<![(*\[][A-Z])[.!?](?=\s+[A-Z\"“(])")
_RUN = re.compile(  # everything except fraction signs and powers: 10⁴ is not 104
    r"[^\u00b2\u00b3\u00b9\u00bc-\u00be\u2070\u2074-\u2079\u207b\u2150-\u215e]+"
)
_SAME_CHARACTERS = str.maketrans(
    {**dict.fromkeys("’‘ʼ＇", "'"), **dict.fromkeys("‐‑‒", "-"), "。": "."}
)
_LATEX_SYMBOLS = (
    ("{,}", ","), ("\\$", "$"), ("\\%", "%"), ("\\times", "*"), ("\\cdot", "*"), ("\\div", "/"),
    ("\\,", ""), ("\\!", ""), ("\\;", " "), ("\\ ", " "), ("\\(", " "), ("\\)", " "),
    ("\\[", " "), ("\\]", " "), ("×", "*"), ("÷", "/"), ("\N{MINUS SIGN}", "-"),
    ("\N{EN DASH}", "-"), ("\N{NO-BREAK SPACE}", " "),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class StatedAnswer:
    """A model's text in parts.

    rationale: everything except the answer, without tags. answer: as written, "" if there is none.
    is_marked: whether a mark or a field states that here is the answer. text: what was searched.
    """

    rationale: str
    answer: str
    is_marked: bool
    text: str


def read_stated_answer(text: str) -> StatedAnswer:
    """Return the rationale and the answer of a model's text.

    A last line or sentence "The answer is ..." counts before a mark. Without a mark the rationale
    is the complete text, and the answer is the boxed answer in it, else the stated one, else "".
    >>> read_stated_answer("<think>Answer: 3?</think>3 + 4 = 7.\\nAnswer: 7").answer
    '7'
    """
    reasoning, rest = _separate_reasoning(text)
    if (fields := _read_object(rest)) is not None:
        rationale, answer, is_marked = *fields, True
    elif last := _LAST_STATEMENT.search(rest.rstrip()):
        rationale, answer, is_marked = rest, find_stated_answer(last[0].lstrip()), False
    elif (marked := find_marked_answer(rest)) is not None:
        rationale, answer, is_marked = *marked, True
    else:
        answer = find_boxed_answer(rest).strip() or find_stated_answer(rest)
        rationale, is_marked = rest, False
    parts = (part.strip() for part in (reasoning, rationale))
    return StatedAnswer("\n\n".join(part for part in parts if part), answer, is_marked, rest)


def split_answer(text: str) -> tuple[str, str]:
    """Return the rationale and the answer as written; see `read_stated_answer`.

    >>> split_answer("3 + 4 = 7.\\nAnswer: 7")
    ('3 + 4 = 7.', '7')
    """
    stated = read_stated_answer(text)
    return stated.rationale, stated.answer


def find_marked_answer(text: str) -> tuple[str, str] | None:
    """Return the text before the last mark and the first line with a word after it, or None.

    A mark before a question or a task, with text after it, marks nothing: "Final Answer: How many
    are left?".
    """
    for mark in reversed(list(_MARK.finditer(text))):
        lines = _list_lines_with_words(re.sub(r"(?i)</answer>", "\n", text[mark.end() :]))
        line = lines[0].strip() if lines else ""
        if not _PROMPT.search(line) or len(lines) < 2:
            return text[: mark.start()].rstrip(" \t\r\n*#"), line
    return None


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


def _separate_reasoning(text: str) -> tuple[str, str]:
    """Return the reasoning and the text after it, both without tags.

    A closing tag alone ends the reasoning: some chat templates put the opening one into the prompt.
    Without a closing tag, all after the opening one is reasoning.
    """
    reasoning, text = _separate_channels(text)
    *_, last = [None, *_THINK.finditer(text)]
    if last is None:
        return reasoning, text
    thoughts, rest = (text[: last.start()], text[last.end() :]) if last[1] else (text, "")
    thoughts = _THINK.sub("", thoughts).strip()
    return "\n\n".join(part for part in (reasoning, thoughts) if part), rest.strip()


def _separate_channels(text: str) -> tuple[str, str]:
    """Return what the channels before `final` hold, and what `final` holds."""
    *before, after = _CHANNEL.split(text)
    if not before:
        return "", text
    names, contents = before[1::2], [*before[2::2], after]
    contents = [_CONTROL_TOKEN.sub("", content).strip() for content in contents]
    reasoning = [_CONTROL_TOKEN.sub("", before[0]).strip()]
    reasoning += [c for name, c in zip(names, contents, strict=True) if name != "final"]
    final = [c for name, c in zip(names, contents, strict=True) if name == "final"]
    return "\n\n".join(filter(None, reasoning)), "\n\n".join(filter(None, final))


def _read_object(text: str) -> tuple[str, str] | None:
    """Return the reasoning and the answer of a text that ends in a JSON object, else None.

    LaTeX breaks objects: then the answer is read from its field. A broken object without this field
    was cut off and has no answer.
    """
    fence = _FENCE.search(text.strip())
    before, written = (text[: fence.start()], fence[1]) if fence else ("", text)
    written = written.strip()
    if not _FIELD.match(written):
        return None
    try:
        fields = json.loads(written, strict=False)
    except (ValueError, RecursionError):
        *_, field = [None, *_ANSWER_FIELD.finditer(written)]
        if field is None:
            return text, ""
        parts = (written[: field.start()], written[field.end() :])
        reasoning = max((_FIELD.sub("", part).strip(' \t\r\n,"{}') for part in parts), key=len)
        return "\n".join(filter(None, (before.strip(), reasoning))), field[1].strip('"')
    by_name = {str(name).casefold(): value for name, value in fields.items()}
    answers = [by_name[name] for name in _ANSWER_FIELDS if name in by_name]
    if not answers:
        return None
    answer = answers[0] if isinstance(answers[0], str | int | float) else ""
    reasoning = next((by_name[name] for name in _REASONING_FIELDS if name in by_name), "")
    steps = reasoning if isinstance(reasoning, list) else [reasoning]
    return "\n".join(filter(None, (before.strip(), *map(str, steps)))), str(answer)


def is_refusal(text: str) -> bool:
    """Return whether the text declines to answer."""
    return _REFUSES.search(text) is not None


def get_first_sentence(text: str) -> str:
    """Return the first sentence of the first line with a word, or ""."""
    lines = _list_lines_with_words(text)
    return _SENTENCE_END.split(lines[0])[0].strip() if lines else ""


def get_last_sentence(text: str) -> str:
    """Return the last sentence of the last line with a word, or ""."""
    last_lines = _list_lines_with_words(text)[-1:]
    parts = [part for line in last_lines for part in _SENTENCE_END.split(line)]
    return next((part.strip() for part in reversed(parts) if re.search(r"\w", part)), "")


def normalize_unicode(text: str) -> str:
    """Return the text in NFKC, with one kind of apostrophe and of hyphen; ½ and 10⁴ stay.

    >>> normalize_unicode("O\N{RIGHT SINGLE QUOTATION MARK}Neil co\N{NON-BREAKING HYPHEN}op 2½")
    "O'Neil co-op 2½"
    """
    composed = _RUN.sub(lambda m: unicodedata.normalize("NFKC", m[0]), text)
    return composed.translate(_SAME_CHARACTERS)


def strip_markup(text: str) -> str:
    r"""Return the text without LaTeX, emphasis and special characters, in one Unicode form.

    >>> strip_markup(r"\boxed{\frac{1}{2}}")
    '1/2'
    """
    text = normalize_unicode(text)
    for _ in range(3):  # up to three levels, such as a fraction in a text in a box
        if (match := _STYLED.search(text)) is None:
            break
        inner, end = _read_braces(text, match.end())
        text = text[: match.start()] + inner + text[end:]
    text = _FRACTION.sub(_write_fraction, text)
    for symbol, meaning in _LATEX_SYMBOLS:
        text = text.replace(symbol, meaning)
    text = re.sub(r"(?<!\d)\*\*|\*\*(?!\d)|(?<!\w)`|`(?!\w)", "", text)
    return re.sub(r"\$(?!\s?\(?[\d.])", "", text).strip()


def _write_fraction(match: re.Match[str]) -> str:
    parts = (match[1] or match[2] or "", match[3] or match[4] or "")
    above, below = (f"({part})" if re.search(r"\S\s*[-+*/^\\]", part) else part for part in parts)
    return f" {above}/{below}"


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
