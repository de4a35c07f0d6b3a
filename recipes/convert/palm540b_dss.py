"""PaLM 540B's answers of Distilling Step-by-Step: CommonsenseQA, SVAMP and e-SNLI.

An answer is cut where the model continues with the next question of its few-shot prompt. An
equation as gold answer becomes its value.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from files import run_script
from recorded_answers import RecordedRow, convert_recordings, read_recorded_rows

from bridgekd.grading.parse_number import parse_number
from bridgekd.prompts import ANSWER_PREFIX

NLI = ("entailment", "neutral", "contradiction")
_NEXT_QUESTION = re.compile(r"\n\s*\n\s*(?:Q:|Premise:)")


def read_palm540b_dss(path: Path) -> Iterator[RecordedRow]:
    """Yield the rows of a file in its order."""
    return read_recorded_rows(path, _parse_row)


def _parse_row(row: Mapping[str, Any]) -> Iterator[RecordedRow]:
    choices: tuple[str, ...] = ()
    if "premise" in row:  # e-SNLI
        question = f"Premise: {row['premise'].strip()}\nHypothesis: {row['hypothesis'].strip()}"
        choices = NLI
    elif "choices" in row:  # CommonsenseQA
        question, choices = row["question"].strip(), tuple(c.strip() for c in row["choices"])
    else:  # SVAMP
        question = row["input"].strip()
    if "palm_raw" in row:
        answer = row["gold"] if choices else _evaluate_equation(row["gold"])
        text = _NEXT_QUESTION.split(row["palm_raw"])[0].strip()
        yield RecordedRow(question, answer, choices, text, flag=row["palm_correct"])
    else:
        text = f"{row['rationale'].strip()}\n{ANSWER_PREFIX} {row['llm_label'].strip()}"
        yield RecordedRow(question, row["label"], choices, text)


def _evaluate_equation(equation: str) -> str:
    value = parse_number(equation)
    if value is None:
        raise KeyError(f"{equation!r} has no value")
    return str(value.numerator) if value.denominator == 1 else f"{float(value):.10g}"


if __name__ == "__main__":
    run_script(lambda: convert_recordings(str(__doc__), _parse_row))
