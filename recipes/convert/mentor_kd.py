"""Mentor-KD's `data/` folder: answers of GPT-3.5 and of T5 assistants, and zero-shot tests.

Where an answer was recorded apart from its reasoning, a line with `Answer:` joins the two.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from files import run_script
from recorded_answers import RecordedRow, convert_recordings, read_recorded_rows

from bridgekd.prompts import ANSWER_PREFIX

_CHOICES = re.compile(
    r"\s*(?:Which choice is true\?\s*)?Answer choices:\s*(?P<choices>(?:\([A-Z]\)|[A-Z]\.)\s.*)",
    re.IGNORECASE | re.DOTALL,
)
_LETTER = re.compile(r"(?:^|,\s*|\n)(?:\([A-Z]\)|[A-Z]\.)\s+")


def read_mentor_kd(path: Path) -> Iterator[RecordedRow]:
    """Yield the rows of a file in its order."""
    return read_recorded_rows(path, _parse_row)


def _parse_row(row: Mapping[str, Any]) -> Iterator[RecordedRow]:
    """Two shapes: input, answer and perhaps chain, completion, initial_correct; or instruction,
    label and a list of outputs.
    """
    question, choices = _split_choices(row["input" if "input" in row else "instruction"])
    answer = str(row["answer" if "answer" in row else "label"])
    if row.get("output"):
        yield from (RecordedRow(question, answer, choices, text.strip()) for text in row["output"])
    elif "chain" not in row:
        yield RecordedRow(question, answer, choices)
    else:
        completion = row.get("completion")
        text = row["chain"].strip()
        text += "" if completion is None else f"\n{ANSWER_PREFIX} {completion.strip()}"
        yield RecordedRow(question, answer, choices, text, flag=row["initial_correct"])


def _split_choices(text: str) -> tuple[str, tuple[str, ...]]:
    found = _CHOICES.search(text)
    if not found:
        return text.strip(), ()
    choices = _LETTER.split(found["choices"].strip().removesuffix("."))
    return text[: found.start()].strip(), tuple(c.strip() for c in choices if c.strip())


if __name__ == "__main__":
    run_script(lambda: convert_recordings(str(__doc__), _parse_row))
