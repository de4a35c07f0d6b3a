"""From published files to the files a recipe names: questions, held-out questions, recordings.

What is held out hangs on the questions' texts alone, unless a published split names it: the same
question is always on the same side, whatever file it came from and in whatever order.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from bridgekd.config import Fields, count_of
from bridgekd.edges.data import load_examples, raw_rows
from bridgekd.edges.published import PublishedFormat, instructions_of, read_published
from bridgekd.edges.recorded import Recorded, RecordedFormat, read_json, read_recorded
from bridgekd.errors import BadInput
from bridgekd.records import Example

Format = RecordedFormat | PublishedFormat | Literal["rows"]


@dataclass(frozen=True, slots=True)
class Converted:
    """How many rows went where."""

    n_questions: int
    n_held_out: int
    n_recordings: int


@dataclass(frozen=True, slots=True)
class Targets:
    """The files to write; `held_out` and `recordings` are None where nobody wants them."""

    questions: Path
    held_out: Path | None = None
    recordings: Path | None = None


def convert(
    files: Sequence[Path],
    written_as: Format,
    to: Targets,
    *,
    fields: Fields | None = None,
    ask: str = "",
    held_out: int | str | Path = 0,
) -> Converted:
    """Writes what `files` hold as JSON lines with id, question, answer and, where the data has
    them, choices and domain.

    `ask` is put below each question. `held_out` is an amount of distinct questions, or the file of
    a published split: a JSON list of ids, or an object whose keys they are. For `rows`, files with
    columns, `fields` says which; with several files a row's domain is its folder's
    name, or its file's where they share one.
    """
    if missing := [file for file in files if not file.is_file()]:
        raise BadInput(f"no such file: {missing[0]}; name the published files")
    if written_as == "self-instruct":
        rows = [row for file in files for _, row in raw_rows(file)]
        return Converted(_write(to.questions, instructions_of(rows)), 0, 0)
    recorded: list[Recorded] = []
    if written_as in get_args(RecordedFormat):
        recorded = [row for file in files for row in read_recorded(file, written_as)]  # type: ignore[arg-type]
        examples = _distinct(recorded)
    else:
        named = zip(files, _names(files), strict=True)
        examples = [e for file, name in named for e in _questions(file, written_as, fields, name)]
    below = f"\n{ask}" if ask else ""
    examples = [replace(e, question=e.question + below) for e in examples]
    aside = _held_out(examples, held_out)
    kept = [e for e in examples if e.question not in aside]
    n_held_out = 0
    if to.held_out is not None:
        n_held_out = _write(to.held_out, (_row(e) for e in examples if e.question in aside))
    n_recordings = 0
    if to.recordings is not None:
        n_recordings = _write(to.recordings, _recordings(recorded, below))
    return Converted(_write(to.questions, map(_row, kept)), n_held_out, n_recordings)


def _names(files: Sequence[Path]) -> list[str]:
    """What tells several files apart: their folders, their own names, or both; "" for one alone."""
    if len(files) == 1:
        return [""]
    folders = [file.resolve().parent.name for file in files]
    names = [file.name.partition(".")[0] for file in files]
    both = [f"{folder}-{name}" for folder, name in zip(folders, names, strict=True)]
    return next((told for told in (folders, names) if len(set(told)) == len(files)), both)


def _questions(file: Path, written_as: Format, fields: Fields | None, name: str) -> list[Example]:
    if written_as == "pubmedqa" or written_as == "tatqa":
        return list(read_published(file, written_as))
    rows = load_examples(file, fields or Fields(), "text")
    return [replace(e, id=f"{name}-{e.id}", domain=name) for e in rows] if name else rows


def _distinct(rows: Iterable[Recorded]) -> list[Example]:
    """One example a question, however many answers it has, in the order of their appearance."""
    found = {(r.question, r.choices): r for r in reversed(list(rows))}
    return [
        Example(_id(r), r.question, r.answer, r.choices) for r in reversed(list(found.values()))
    ]


def _id(row: Recorded) -> str:
    """The same for the same question and options, in any file."""
    text = json.dumps([row.question, row.choices])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _recordings(rows: Sequence[Recorded], below: str) -> Iterator[dict[str, Any]]:
    """By question, as recordings are found; by id where one text has several sets of options."""
    options = defaultdict(set)
    for row in rows:
        options[row.question].add(row.choices)
    for row in rows:
        if row.text is not None:
            name = "question" if len(options[row.question]) == 1 else "id"
            value = row.question + below if name == "question" else _id(row)
            yield {name: value, "text": row.text}


def _held_out(examples: Sequence[Example], amount: int | str | Path) -> set[str]:
    if isinstance(amount, Path):
        return _published(examples, amount)
    distinct = sorted({e.question for e in examples}, key=_place)
    n = count_of(amount, len(distinct))
    if distinct and n >= len(distinct):
        raise BadInput(f"to hold out {amount} of {len(distinct)} questions leaves none; give less")
    return set(distinct[:n])


def _published(examples: Sequence[Example], split: Path) -> set[str]:
    """The questions whose ids a published split names."""
    tree = read_json(split)
    if not isinstance(tree, list | dict):
        raise BadInput(f"{split} is neither a list of ids nor an object of them; give another file")
    named, known = {str(id) for id in tree}, {e.id for e in examples}
    if missing := sorted(named - known):
        raise BadInput(
            f"{split} names {len(missing)} ids that the data has not, such as {missing[0]!r}; give "
            "the split of these files"
        )
    if named >= known:
        raise BadInput(f"{split} names every question, which leaves none; give a split's test ids")
    return {e.question for e in examples if e.id in named}


def _place(question: str) -> str:
    return hashlib.sha256(question.encode()).hexdigest()


def _row(example: Example) -> Mapping[str, Any]:
    row: dict[str, Any] = {"id": example.id, "question": example.question}
    row["answer"] = example.answer
    row |= {"choices": list(example.choices)} if example.choices else {}
    return row | ({"domain": example.domain} if example.domain else {})


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    try:
        path.write_text("".join(lines), encoding="utf-8")
    except OSError as exc:
        raise BadInput(f"cannot write {path}: {exc.strerror}; name another file") from exc
    return len(lines)
