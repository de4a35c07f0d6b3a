"""Recorded answers of real teachers, in the formats they were published in, as questions and texts.

A file is read as it lies, gzip-ed or not. Nothing is invented but one mark: where an answer was
recorded apart from its reasoning, `Answer:` stands between the two. Flags of correctness come along
for measuring graders; nothing else uses them.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bridgekd.core.amounts import number_in
from bridgekd.core.prompts import ANSWER_MARK
from bridgekd.edges.data import raw_rows
from bridgekd.edges.rows import open_text, utf8_of
from bridgekd.errors import BadInput

RecordedFormat = Literal["mentor-kd", "palm540b-dss"]
_OPTIONS = re.compile(
    r"\s*(?:Which choice is true\?\s*)?Answer choices:\s*(?P<options>(?:\([A-Z]\)|[A-Z]\.)\s.*)",
    re.IGNORECASE | re.DOTALL,
)
_LETTERED = re.compile(r"(?:^|,\s*|\n)(?:\([A-Z]\)|[A-Z]\.)\s+")
_RUN_ON = re.compile(r"\n\s*\n\s*(?:Q:|Premise:)")  # the next question of a few-shot prompt
NLI = ("entailment", "neutral", "contradiction")


@dataclass(frozen=True, slots=True)
class Recorded:
    """A question and one recorded answer to it; `text` is None for a question alone. `sample`
    counts the answers of one question; `flag` is the recording's own word on whether it is right.
    """

    question: str
    answer: str
    choices: tuple[str, ...] = ()
    text: str | None = None
    sample: int = 0
    flag: bool | None = None


def read_recorded(path: Path, written_as: RecordedFormat) -> Iterator[Recorded]:
    """The recordings of a file, in its order. BadInput names the first row that does not fit."""
    n_seen: Counter[str] = Counter()
    for number, row in enumerate(_rows(path), start=1):
        try:
            found = list(_READ[written_as](row))
        except (KeyError, TypeError, AttributeError) as exc:
            raise BadInput(
                f"{path} row {number}: not in the format {written_as} ({exc!r}); name another "
                "--format or mend the row"
            ) from exc
        for one in found:
            yield one if one.text is None else _numbered(one, n_seen)


def read_json(path: Path) -> Any:
    """The one JSON value of a file that may be gzip-ed."""
    try:
        with open_text(path) as file, utf8_of(path):
            return json.loads(file.read())
    except OSError as exc:
        raise BadInput(f"cannot read {path}: {exc.strerror}; name another file") from exc
    except (json.JSONDecodeError, RecursionError) as exc:
        raise BadInput(f"{path} is no JSON: {exc}; give the file as it was published") from exc


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    if ".json" not in path.suffixes:
        yield from (row for _, row in raw_rows(path))
        return
    rows = read_json(path)
    if not isinstance(rows, list):
        raise BadInput(f"{path} holds no list of rows; give the file as it was published")
    yield from rows


def _numbered(one: Recorded, n_seen: Counter[str]) -> Recorded:
    sample = n_seen[one.question]
    n_seen[one.question] += 1
    return Recorded(one.question, one.answer, one.choices, one.text, sample, one.flag)


def _mentor_kd(row: Mapping[str, Any]) -> Iterator[Recorded]:
    """input, answer; chain, completion, initial_correct where something was recorded; or
    instruction, label and a list of outputs.
    """
    question, choices = _question_and_options(row["input" if "input" in row else "instruction"])
    gold = str(row["answer" if "answer" in row else "label"])
    if "output" in row:
        yield from (Recorded(question, gold, choices, text.strip()) for text in row["output"])
        if row["output"]:
            return
    if "chain" not in row:
        yield Recorded(question, gold, choices)
        return
    said = row.get("completion")
    text = row["chain"].strip() + ("" if said is None else f"\n{ANSWER_MARK} {said.strip()}")
    yield Recorded(question, gold, choices, text, flag=row["initial_correct"])


def _palm(row: Mapping[str, Any]) -> Iterator[Recorded]:
    """CommonsenseQA (question, choices), SVAMP (input, an equation as gold) or e-SNLI (premise,
    hypothesis); what the model went on to write after its answer is cut off.
    """
    choices: tuple[str, ...] = ()
    if "premise" in row:
        question = f"Premise: {row['premise'].strip()}\nHypothesis: {row['hypothesis'].strip()}"
        choices = NLI
    elif "choices" in row:
        question, choices = row["question"].strip(), tuple(c.strip() for c in row["choices"])
    else:
        question = row["input"].strip()
    if "palm_raw" in row:
        gold = row["gold"] if choices else _value(row["gold"])
        text = _RUN_ON.split(row["palm_raw"])[0].strip()
        yield Recorded(question, gold, choices, text, flag=row["palm_correct"])
    else:
        text = f"{row['rationale'].strip()}\n{ANSWER_MARK} {row['llm_label'].strip()}"
        yield Recorded(question, row["label"], choices, text)


def _question_and_options(asked: str) -> tuple[str, tuple[str, ...]]:
    found = _OPTIONS.search(asked)
    if not found:
        return asked.strip(), ()
    options = _LETTERED.split(found["options"].strip().removesuffix("."))
    return asked[: found.start()].strip(), tuple(o.strip() for o in options if o.strip())


def _value(equation: str) -> str:
    value = number_in(equation)
    if value is None:
        raise KeyError(f"{equation!r} has no value")
    return str(value.numerator) if value.denominator == 1 else f"{float(value):.10g}"


_READ: dict[RecordedFormat, Callable[[Mapping[str, Any]], Iterator[Recorded]]] = {
    "mentor-kd": _mentor_kd,
    "palm540b-dss": _palm,
}
