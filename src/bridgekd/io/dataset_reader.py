"""Data sets in: JSONL, CSV, Parquet or a Hub id, through the recipe's field map, to Example rows.

Every complaint names the file and the line (the row, for formats without lines), the value and the
remedy.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bridgekd.errors import InputError
from bridgekd.grading.answer_type import AnswerType
from bridgekd.io.row_files import open_text, read_jsonl, translate_utf8_errors
from bridgekd.recipe import ColumnNames
from bridgekd.records import Example

RawRow = tuple[str, dict[str, Any]]  # ("file line 3", the row)


def read_examples(
    path: Path, fields: ColumnNames, answer_type: AnswerType, *, unlabelled: bool = False
) -> list[Example]:
    """The examples of `examples_in`, all of them."""
    return list(iter_examples(path, fields, answer_type, unlabelled=unlabelled))


def iter_examples(
    path: Path, fields: ColumnNames, answer_type: AnswerType, *, unlabelled: bool = False
) -> Iterator[Example]:
    """The examples of a file or Hub data set in their order; InputError on the first row that does
    not fit. With `unlabelled`, rows may have no answer.
    """
    n, seen = 0, set[int]()
    for place, row in iter_raw_rows(path):
        example = _example(place, row, fields, n, unlabelled)
        if fields.id is not None:
            name = hash(example.id)
            if name in seen:
                _check_unique_id(path, fields, place, example.id)
            seen.add(name)
        if example.answer is not None or not unlabelled:
            example = _normalize_answer(place, example, answer_type)
        yield example
        n += 1
    if not n:
        raise InputError(f"{path} holds no rows; give a file with at least one question")


def _check_unique_id(path: Path, fields: ColumnNames, place: str, id: str) -> None:
    """Looks where the id stood before: places of millions of rows are not kept."""
    for earlier, row in iter_raw_rows(path):
        if earlier == place:
            return  # two ids with one hash
        if str(row.get(str(fields.id))) == id:
            raise InputError(f"{place}: id {id!r} stands already at {earlier}; ids must differ")


def read_instructions(path: Path) -> list[tuple[str, str]]:
    """(instruction, response) pairs; alpaca's instruction/input/output, prompt/completion and
    messages rows.
    """
    pairs = []
    for place, row in iter_raw_rows(path):
        pair = _instruction(row)
        if pair is not None and not pair[1].strip():
            continue  # some sets have rows without a response: nothing to learn from
        if pair is None:
            raise InputError(
                f"{place}: no instruction found; expected the columns instruction and output "
                "(input optional), prompt and completion (or response), or messages"
            )
        pairs.append(pair)
    if not pairs:
        raise InputError(f"{path} holds no instructions; give a file with at least one")
    return pairs


def _instruction(row: dict[str, Any]) -> tuple[str, str] | None:
    messages = row.get("messages")
    if isinstance(messages, list) and len(messages) >= 2:
        asked, answered = (m.get("content") for m in messages[-2:])
    else:
        asked = row.get("instruction") or row.get("prompt")
        known = [row[k] for k in ("output", "response", "completion") if row.get(k) is not None]
        answered = known[0] if known else None
    if not isinstance(asked, str) or not isinstance(answered, str):
        return None
    return (f"{asked}\n{row['input']}" if row.get("input") else asked), answered


def iter_raw_rows(path: Path) -> Iterator[RawRow]:
    """(place, row) of a file, gzip-ed or not, or of a Hub data set."""
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix in {".jsonl", ".ndjson"}:
        yield from ((f"{path} line {number}", row) for number, row in read_jsonl(path))
    elif suffix in {".csv", ".tsv"}:
        yield from _iter_csv(path, "\t" if suffix == ".tsv" else ",")
    elif suffix == ".parquet":
        yield from _iter_parquet(path)
    elif path.is_file():
        raise InputError(
            f"{path}: unknown kind of file; give .jsonl, .csv, .tsv (perhaps with .gz) or .parquet"
        )
    else:
        yield from _iter_hub(str(path))


def _iter_csv(path: Path, delimiter: str) -> Iterator[RawRow]:
    with open_text(path, newline="") as file, translate_utf8_errors(path):
        reader = csv.DictReader(file, delimiter=delimiter, strict=True)
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise InputError(
                        f"{path} line {reader.line_num}: not as many fields as the header's "
                        f"{len(reader.fieldnames or ())}; look for a stray {delimiter!r} or quote"
                    )
                yield f"{path} line {reader.line_num}", row
        except csv.Error as exc:
            raise InputError(f"{path} line {reader.line_num}: broken CSV ({exc})") from exc


def _iter_parquet(path: Path) -> Iterator[RawRow]:
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as exc:
        raise InputError(f"{path} is not a Parquet file; write it again") from exc
    number = 0
    for batch in file.iter_batches():
        for row in batch.to_pylist():
            number += 1
            yield f"{path} row {number}", row


def _iter_hub(where: str) -> Iterator[RawRow]:
    name, _, split = where.partition(":")
    owner, _, rest = name.partition("/")
    name, _, config = (f"{owner}/{rest.partition('/')[0]}", "/", rest.partition("/")[2])
    try:
        from datasets import load_dataset
        from datasets.exceptions import DatasetsError
    except ImportError as exc:
        raise InputError(
            f"{where} is a Hub data set; install it with: pip install 'bridgekd[local]'"
        ) from exc
    try:
        rows = load_dataset(name, config or None, split=split or "train")
    except (OSError, ValueError, DatasetsError) as exc:
        raise InputError(
            f"cannot load the Hub data set {name!r} (split {split or 'train'}): {exc}"
        ) from exc
    for number, row in enumerate(rows, start=1):
        yield f"{where} row {number}", dict(row)


def _example(
    place: str, row: dict[str, Any], fields: ColumnNames, number: int, unlabelled: bool
) -> Example:
    question = str(_get_column(place, row, fields.question, "question")).strip()
    if not question:
        raise InputError(f"{place}: the question is empty; fill it or remove the row")
    if fields.answer not in row and not unlabelled:
        _get_column(place, row, fields.answer, "answer")
    answer, choices = row.get(fields.answer), _choices(place, row, fields.choices)
    if isinstance(answer, list):  # several labels or spans
        answer = "; ".join(str(part).strip() for part in answer)
    elif isinstance(answer, int) and not isinstance(answer, bool) and choices:
        answer = _resolve_choice_index(place, answer, choices)
    return Example(
        id=str(_get_column(place, row, fields.id, "id")) if fields.id else f"{number:07d}",
        question=question,
        answer=None if answer is None or str(answer).strip() == "" else str(answer).strip(),
        choices=choices,
        domain=str(_get_column(place, row, fields.domain, "domain")) if fields.domain else "",
    )


def _get_column(place: str, row: dict[str, Any], column: str, role: str) -> Any:
    if column in row and row[column] is not None:
        return row[column]
    near = get_close_matches(column, [str(key) for key in row], n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near and near[0] != column else ""
    raise InputError(
        f"{place}: no column {column!r} (data.columns.{role}); the row has "
        f"{', '.join(map(str, row))}{hint}"
    )


def _choices(place: str, row: dict[str, Any], column: str | None) -> tuple[str, ...]:
    if column is None:
        return ()
    value = _get_column(place, row, column, "choices")
    if isinstance(value, str):  # CSV: a JSON list in a cell
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            value = None
    if isinstance(value, dict):  # {"A": "first", ...} or {"text": [...], "label": [...]}
        value = value.get("text") or list(value.values())
    if not isinstance(value, list) or not 2 <= len(value) <= 26:
        raise InputError(
            f"{place}: {column!r} is no list of 2 to 26 options (data.columns.choices)"
        )
    return tuple(str(option).strip() for option in value)


def _resolve_choice_index(place: str, number: int, choices: tuple[str, ...]) -> str:
    """The option that a data set of the Hub means by a number: they count from 0. Where options
    are numbers themselves it must not be able to mean another.
    """
    if str(number) in choices:
        if 0 <= number < len(choices) and choices[number] != str(number):
            raise InputError(
                f"{place}: the answer {number} may be the option {str(number)!r} or, counted from "
                f"0, the option {choices[number]!r}; give the option's letter or its quoted text"
            )
        return str(number)
    if not 0 <= number < len(choices):
        raise InputError(
            f"{place}: the answer {number} is no option from 0 to {len(choices) - 1}; give the "
            "option's letter or text"
        )
    return choices[number]


def _normalize_answer(place: str, example: Example, answer_type: AnswerType) -> Example:
    """The example with its answer as it is to be learnt: a choice's text, what follows `####`."""
    name, choices = answer_type.settings.name, example.choices
    if example.answer is None:
        raise InputError(f"{place}: no answer; fill it, remove the row or mend data.columns.answer")
    if answer_type.has_choices and not choices:
        raise InputError(
            f"{place}: The answer type is {name}, and the row has no choices. Set "
            "data.columns.choices."
        )
    if not answer_type.canonicalize(example.answer, choices):
        among = f" among {list(choices)}" if answer_type.has_choices else ""
        raise InputError(
            f"{place}: The answer {example.answer!r} is not a {name}{among}. Correct it or set "
            "data.answer_type."
        )
    return replace(example, answer=answer_type.clean_gold(example.answer, choices))
