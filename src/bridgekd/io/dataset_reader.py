"""Read data sets (JSONL, CSV, Parquet or a Hub id) into Example rows.

Every error message has the file and the line (the row, for formats without lines), the value and
the next step.
"""

import csv
import json
from collections.abc import Iterator, Mapping
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

RawRow = tuple[str, Mapping[str, Any]]  # ("file line 3", the row)


def read_examples(
    path: Path, columns: ColumnNames, answer_type: AnswerType, *, unlabeled: bool = False
) -> list[Example]:
    """Return all examples of `iter_examples`."""
    return list(iter_examples(path, columns, answer_type, unlabeled=unlabeled))


def iter_examples(
    path: Path, columns: ColumnNames, answer_type: AnswerType, *, unlabeled: bool = False
) -> Iterator[Example]:
    """Yield the examples of a file or Hub data set in their order.

    unlabeled: rows may have no answer. Raises InputError for the first row that does not fit.
    """
    n_rows, seen = 0, set[int]()
    for where, row in iter_raw_rows(path):
        example = _parse_example(where, row, columns, n_rows, unlabeled)
        if columns.id is not None:
            id_hash = hash(example.id)
            if id_hash in seen:
                _check_unique_id(path, columns.id, where, example.id)
            seen.add(id_hash)
        if example.answer is not None or not unlabeled:
            example = _normalize_answer(where, example, answer_type)
        yield example
        n_rows += 1
    if not n_rows:
        raise InputError(f"{path} has no rows. Add at least one question.")


def _check_unique_id(path: Path, column: str, where: str, id: str) -> None:
    """Read the file again for the first use of an id, because only hashes are in memory."""
    for earlier, row in iter_raw_rows(path):
        if earlier == where:
            return  # two ids with the same hash
        if str(row.get(column)) == id:
            raise InputError(
                f"{where}: Duplicate id {id!r}, first used at {earlier}. Make all ids unique."
            )


def read_instructions(path: Path) -> list[tuple[str, str]]:
    """Return the (instruction, response) pairs of an instruction data set.

    Rows have the columns instruction, input and output (Alpaca), or prompt and completion, or
    messages. Rows with an empty response are skipped.
    """
    pairs = []
    for where, row in iter_raw_rows(path):
        pair = _parse_instruction(row)
        if pair is None:
            raise InputError(
                f"{where}: No instruction found. Expected the columns instruction and output "
                "(input is optional), prompt and completion (or response), or messages."
            )
        if pair[1].strip():
            pairs.append(pair)
    if not pairs:
        raise InputError(f"{path} has no instructions. Add at least one.")
    return pairs


def _parse_instruction(row: Mapping[str, Any]) -> tuple[str, str] | None:
    messages = row.get("messages")
    if isinstance(messages, list) and len(messages) >= 2:
        prompt, response = (message.get("content") for message in messages[-2:])
    else:
        prompt = row.get("instruction") or row.get("prompt")
        names = ("output", "response", "completion")
        response = next((row[name] for name in names if row.get(name) is not None), None)
    if not isinstance(prompt, str) or not isinstance(response, str):
        return None
    return (f"{prompt}\n{row['input']}" if row.get("input") else prompt), response


def iter_raw_rows(path: Path) -> Iterator[RawRow]:
    """Yield (place, row) of a file, optionally gzip, or of a Hub data set."""
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix in {".jsonl", ".ndjson"}:
        yield from ((f"{path} line {number}", row) for number, row in read_jsonl(path))
    elif suffix in {".csv", ".tsv"}:
        yield from _iter_csv(path, "\t" if suffix == ".tsv" else ",")
    elif suffix == ".parquet":
        yield from _iter_parquet(path)
    elif path.is_file():
        raise InputError(
            f"{path}: Unknown file type. Use .jsonl, .csv, .tsv (each optionally .gz) or .parquet."
        )
    else:
        yield from _iter_hub(str(path))


def _iter_csv(path: Path, delimiter: str) -> Iterator[RawRow]:
    with open_text(path, newline="") as file, translate_utf8_errors(path):
        reader = csv.DictReader(file, delimiter=delimiter, strict=True)
        try:
            for row in reader:
                where = f"{path} line {reader.line_num}"
                if None in row or None in row.values():
                    n_fields = len(reader.fieldnames or ())
                    raise InputError(
                        f"{where}: The header has {n_fields} fields, this row has not. Look for a "
                        f"stray {delimiter!r} or quote."
                    )
                yield where, row
        except csv.Error as exc:
            raise InputError(f"{path} line {reader.line_num}: Broken CSV ({exc}). Fix it.") from exc


def _iter_parquet(path: Path) -> Iterator[RawRow]:
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as exc:
        raise InputError(f"{path} is not a Parquet file. Write it again.") from exc
    rows = (row for batch in file.iter_batches() for row in batch.to_pylist())
    yield from ((f"{path} row {number}", row) for number, row in enumerate(rows, start=1))


def _iter_hub(hub_id: str) -> Iterator[RawRow]:
    """Yield the rows of `owner/name/config:split`; config and split are optional."""
    path, _, split = hub_id.partition(":")
    owner, _, rest = path.partition("/")
    name, _, config = rest.partition("/")
    try:
        from datasets import load_dataset
        from datasets.exceptions import DatasetsError
    except ImportError as exc:
        raise InputError(
            f"{hub_id} is a Hub data set. To read it, run: pip install 'bridgekd[local]'"
        ) from exc
    try:
        rows = load_dataset(f"{owner}/{name}", config or None, split=split or "train")
    except (OSError, ValueError, DatasetsError) as exc:
        raise InputError(
            f"Cannot load the Hub data set {owner}/{name} (split {split or 'train'}): {exc}"
        ) from exc
    for number, row in enumerate(rows, start=1):
        yield f"{hub_id} row {number}", dict(row)


def _parse_example(
    where: str, row: Mapping[str, Any], columns: ColumnNames, number: int, unlabeled: bool
) -> Example:
    question = str(_get_column(where, row, columns.question, "question")).strip()
    if not question:
        raise InputError(f"{where}: The question is empty. Add it or remove the row.")
    if columns.answer not in row and not unlabeled:
        _get_column(where, row, columns.answer, "answer")
    answer, choices = row.get(columns.answer), _parse_choices(where, row, columns.choices)
    if isinstance(answer, list):  # several labels or spans
        answer = "; ".join(str(part).strip() for part in answer)
    elif isinstance(answer, int) and not isinstance(answer, bool) and choices:
        answer = _resolve_choice_index(where, answer, choices)
    return Example(
        id=str(_get_column(where, row, columns.id, "id")) if columns.id else f"{number:07d}",
        question=question,
        answer=None if answer is None else str(answer).strip() or None,
        choices=choices,
        domain=str(_get_column(where, row, columns.domain, "domain")) if columns.domain else "",
    )


def _get_column(where: str, row: Mapping[str, Any], column: str, role: str) -> Any:
    if row.get(column) is not None:
        return row[column]
    names = [str(name) for name in row]
    near = get_close_matches(column, names, n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]!r}?" if near and near[0] != column else ""
    raise InputError(
        f"{where}: No column {column!r} (data.columns.{role}). The row has {', '.join(names)}."
        f"{hint}"
    )


def _parse_choices(where: str, row: Mapping[str, Any], column: str | None) -> tuple[str, ...]:
    if column is None:
        return ()
    value = _get_column(where, row, column, "choices")
    if isinstance(value, str):  # CSV: a JSON list in a cell
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            value = None
    if isinstance(value, dict):  # {"A": "first", ...} or {"text": [...], "label": [...]}
        value = value.get("text") or list(value.values())
    if not isinstance(value, list) or not 2 <= len(value) <= 26:
        raise InputError(
            f"{where}: {column!r} is not a list of 2 to 26 choices (data.columns.choices). Fix the "
            "row or the column name."
        )
    return tuple(str(choice).strip() for choice in value)


def _resolve_choice_index(where: str, number: int, choices: tuple[str, ...]) -> str:
    """Return the choice that a number means. Data sets of the Hub count choices from 0.

    A choice can be a number itself. Then the number must not mean another choice by its index.
    """
    is_index = 0 <= number < len(choices)
    if str(number) not in choices:
        if not is_index:
            raise InputError(
                f"{where}: The answer {number} is not a choice from 0 to {len(choices) - 1}. Write "
                "the choice's letter or text."
            )
        return choices[number]
    if is_index and choices[number] != str(number):
        raise InputError(
            f"{where}: The answer {number} is either the choice {str(number)!r} or, counted from "
            f"0, the choice {choices[number]!r}. Write the choice's letter or quoted text."
        )
    return str(number)


def _normalize_answer(where: str, example: Example, answer_type: AnswerType) -> Example:
    """Return the example with its training target: the text of a choice, the text after `####`."""
    name, choices = answer_type.settings.name, example.choices
    if example.answer is None:
        raise InputError(
            f"{where}: The answer is missing. Add it, remove the row, or fix data.columns.answer."
        )
    if answer_type.has_choices and not choices:
        raise InputError(
            f"{where}: The answer type is {name}, and the row has no choices. Set "
            "data.columns.choices."
        )
    if not answer_type.canonicalize(example.answer, choices):
        among = f" among {list(choices)}" if answer_type.has_choices else ""
        raise InputError(
            f"{where}: The answer {example.answer!r} is not a {name}{among}. Correct it or set "
            "data.answer_type."
        )
    return replace(example, answer=answer_type.clean_gold(example.answer, choices))
