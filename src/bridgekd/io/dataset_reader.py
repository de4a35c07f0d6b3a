"""Read data sets (JSONL, CSV, Parquet or a Hub id) into Example rows.

Every error message has the file and the line (the row, for formats without lines), the value and
the next step.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from bridgekd.errors import InputError
from bridgekd.grading.answer_match import fold_case
from bridgekd.grading.answer_type import AnswerType
from bridgekd.io.raw_rows import iter_raw_rows
from bridgekd.io.row_files import check_characters, parse_json_value
from bridgekd.messages import format_text, format_value
from bridgekd.prompts import LETTERS
from bridgekd.recipe import ColumnNames
from bridgekd.records import Example

_LABEL_FIELDS, _TEXT_FIELDS = ("label", "key", "id"), ("text", "value", "option", "content")
_REMEDY = "Write one text or number there, or name another column."


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
        example = _parse_example(where, row, columns, n_rows, unlabeled, answer_type)
        if columns.id is not None:
            id_hash = hash(example.id)
            if id_hash in seen:
                _check_unique_id(path, columns.id, where, example.id)
            seen.add(id_hash)
        if example.answer is not None or not unlabeled:
            example = _normalize_answers(where, example, answer_type)
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
                f"{where}: Duplicate id {format_value(id)}, first used at {earlier}. Make all "
                "ids unique."
            )


@dataclass(frozen=True, slots=True)
class _Choices:
    """The texts of the choices in the order of the prompt, and their labels in the data."""

    texts: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


def _parse_example(
    where: str,
    row: Mapping[str, object],
    columns: ColumnNames,
    number: int,
    unlabeled: bool,
    answer_type: AnswerType,
) -> Example:
    question = _parse_question(where, _get_column(where, row, columns.question, "question"))
    if not question:
        raise InputError(f"{where}: The question is empty. Add it or remove the row.")
    if columns.answer not in row and not unlabeled:
        _get_column(where, row, columns.answer, "answer")
    choices = _parse_choices(where, row, columns.choices)
    answers = _parse_answers(where, row.get(columns.answer), answer_type)
    if choices.texts:
        is_number = isinstance(row.get(columns.answer), int)
        answers = tuple(_resolve_choice(where, answer, choices, is_number) for answer in answers)
    return Example(
        id=_get_text(where, row, columns.id, "id") if columns.id else f"{number:07d}",
        question=question,
        answer=answers[0] if answers else None,
        choices=choices.texts,
        domain=_get_text(where, row, columns.domain, "domain") if columns.domain else "",
        alternatives=answers[1:],
    )


def _get_column(where: str, row: Mapping[str, object], column: str, role: str) -> object:
    if not _is_missing(value := row.get(column)):
        return value
    names = [str(name) for name in row]
    if column in row:
        raise InputError(
            f"{where}: The column {format_value(column)} (data.columns.{role}) is empty. Fill it."
        )
    near = get_close_matches(column, names, n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]!r}?" if near else " A file without a header needs one."
    raise InputError(
        f"{where}: No column {format_value(column)} (data.columns.{role}). The row has "
        f"{format_text(', '.join(names))}.{hint}"
    )


def _get_text(where: str, row: Mapping[str, object], column: str, role: str) -> str:
    return _to_text(where, _get_column(where, row, column, role), f"data.columns.{role}")


def _is_missing(value: object) -> bool:
    """Return whether a value is null; JSON and pandas write NaN for it, too."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _to_text(where: str, value: object, what: str) -> str:
    """Return a text, number or truth value as text. Raises InputError for every other value."""
    if isinstance(value, bytes):
        raise InputError(f"{where}: {what} is binary ({format_value(value)}). {_REMEDY}")
    if not isinstance(value, str | int | float) or value in (math.inf, -math.inf):
        raise InputError(f"{where}: {what} is {format_value(value)}. {_REMEDY}")
    return str(value).strip()


def _parse_question(where: str, value: object) -> str:
    """Return a question: a text, the stem of an ARC question, or the one message of a user."""
    if isinstance(value, Mapping) and "stem" in value:
        value = value["stem"]
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], Mapping):
        message = value[0]
        if message.get("role", message.get("from")) in ("user", "human"):
            value = message.get("content", message.get("value"))
    return _to_text(where, value, "The question")


def _parse_answers(where: str, value: object, answer_type: AnswerType) -> tuple[str, ...]:
    """Return the gold answer and its alternatives, any of which is correct; () if there is none.

    Several labels or spans are one answer. SQuAD's object has its answers in the field `text`.
    """
    if isinstance(value, Mapping) and isinstance(value.get("text"), list):
        value = value["text"]
    if not isinstance(value, list):
        text = "" if _is_missing(value) else _to_text(where, value, "The answer")
        return (text,) if text else ()
    texts = [_to_text(where, part, "An answer of the list") for part in value]
    if answer_type.grader.joins_lists:
        return ("; ".join(texts),) if texts else ()
    if len(texts) > 1 and not answer_type.grader.has_alternatives:
        raise InputError(
            f"{where}: The answer is a list of {len(texts)}, and a {answer_type.settings.name} has "
            "one. Write one answer, or set data.answer_type: multi_label."
        )
    return tuple(dict.fromkeys(text for text in texts if text))


def _parse_choices(where: str, row: Mapping[str, object], column: str | None) -> _Choices:
    """Return the choices of {"A": "first"}, {"label": [...], "text": [...]}, or a list.

    A list has texts, or objects with a label and a text. A null is no choice. Labels that are the
    letters from A on decide the order.
    """
    if column is None:
        return _Choices()
    value = _get_column(where, row, column, "choices")
    if isinstance(value, str):  # CSV: a JSON value in a cell
        try:
            value = parse_json_value(value)
        except ValueError as exc:
            raise InputError(
                f"{where}: {format_value(column)} is no list of choices (data.columns.choices): "
                f"{exc}. Write a JSON list."
            ) from exc
        check_characters(value, where)
    pairs = _list_pairs(value)
    if pairs is None or not 2 <= len(pairs) <= len(LETTERS):
        raise InputError(
            f"{where}: {format_value(column)} is not a list of 2 to {len(LETTERS)} choices "
            "(data.columns.choices). Fix the row or the column name."
        )
    read = [
        (_to_text(where, label, "A choice's label"), _to_text(where, text, "A choice"))
        for label, text in pairs
    ]
    if sorted(label for label, _ in read) == list(LETTERS[: len(read)]):
        read.sort()
    labels, texts = zip(*read, strict=True)
    return _Choices(texts, labels if all(labels) else ())


def _list_pairs(value: object) -> list[tuple[object, object]] | None:
    """Return (label, text) of every choice that is not null; a choice without a label has ""."""
    if isinstance(value, Mapping) and isinstance(value.get("text"), list):
        texts = value["text"]
        labels = value.get("label") or [""] * len(texts)
        if not isinstance(labels, list) or len(labels) != len(texts):
            return None
        pairs = list(zip(labels, texts, strict=True))
    elif isinstance(value, Mapping):
        pairs = list(value.items())
    elif isinstance(value, list):
        pairs = [_split_choice(choice) for choice in value]
    else:
        return None
    return [(label, text) for label, text in pairs if not _is_missing(text)]


def _split_choice(choice: object) -> tuple[object, object]:
    if not isinstance(choice, Mapping):
        return "", choice
    label = next((choice[name] for name in _LABEL_FIELDS if name in choice), "")
    return label, next((choice[name] for name in _TEXT_FIELDS if name in choice), choice)


def _resolve_choice(where: str, answer: str, choices: _Choices, is_number: bool) -> str:
    """Return an answer as the letter and text of the choice that it means.

    Its meanings: a label of the data; without labels, a letter from A on or an index from 0, as
    data sets of the Hub have them; a choice's text. A quoted number is a choice's text before it is
    an index. Raises InputError if two choices are meant.
    """
    texts, names = choices.texts, choices.labels or LETTERS[: len(choices.texts)]
    if choices.labels and len(set(choices.labels)) < len(choices.labels):
        raise InputError(f"{where}: Two choices have one label. Make the labels unique.")
    if (
        choices.labels
        and answer in LETTERS
        and answer not in choices.labels
        and answer not in texts
    ):
        raise InputError(
            f"{where}: The answer {format_value(answer)} is not a label of the choices, which are "
            f"{format_text(', '.join(choices.labels))}. Write one of them, or the choice's text."
        )
    by_text = {index for index, text in enumerate(texts) if text == answer}
    by_text = by_text or {i for i, text in enumerate(texts) if fold_case(text) == fold_case(answer)}
    meant = {index for index, name in enumerate(names) if name == answer}
    may_be_index = not choices.labels and answer.isdecimal() and (is_number or not by_text)
    if may_be_index and len(answer) < 3 and int(answer) < len(texts):
        meant.add(int(answer))
    if len(meant | by_text) > 1 and meant and by_text:
        first, second = min(meant), min(by_text)
        raise InputError(
            f"{where}: The answer {format_value(answer)} is either the label or index of "
            f"{format_value(texts[first])} or the choice {format_value(texts[second])}. Write the "
            f"choice as '({format_text(names[second])}) {format_text(texts[second])}'."
        )
    if not (meant | by_text):
        return answer  # such as "(B) water": the grader reads it
    index = min(meant | by_text)
    return f"({LETTERS[index]}) {texts[index]}"


def _normalize_answers(where: str, example: Example, answer_type: AnswerType) -> Example:
    """Return the example with its training target: the text of a choice, the text after `####`."""
    if example.answer is None:
        raise InputError(
            f"{where}: The answer is missing. Add it, remove the row, or fix data.columns.answer."
        )
    name, choices = answer_type.settings.name, example.choices
    if answer_type.has_choices and not choices:
        raise InputError(
            f"{where}: The answer type is {name}, and the row has no choices. Set "
            "data.columns.choices."
        )
    for answer in (example.answer, *example.alternatives):
        if not answer_type.is_gold(answer, choices):
            among = f" among {format_value(list(choices))}" if answer_type.has_choices else ""
            raise InputError(
                f"{where}: The answer {format_value(answer)} is not a {name}{among}. Correct it "
                f"or set data.answer_type{answer_type.grader.other_types}."
            )
    first, *others = (
        answer_type.clean_gold(answer, choices)
        for answer in (example.answer, *example.alternatives)
    )
    return replace(example, answer=first, alternatives=tuple(others))
