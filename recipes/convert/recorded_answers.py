"""Questions with recorded answers, as a data file and the recordings of `transport: replay`.

Flags of correctness come along for measuring graders. Nothing else uses them.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from files import make_parser, parse_options, read_json_file, to_row, write_jsonl

from bridgekd.io.raw_rows import iter_raw_rows
from bridgekd.records import Example


@dataclass(frozen=True, slots=True)
class RecordedRow:
    """A question and one recorded answer to it; `text` is None for a question without one.

    `sample` counts the answers to the same question. `flag` is what the recording says about the
    answer: correct, wrong, or None.
    """

    question: str
    answer: str
    choices: tuple[str, ...] = ()
    text: str | None = None
    sample: int = 0
    flag: bool | None = None

    @property
    def id(self) -> str:
        """The same for the same question and choices, in any file."""
        text = json.dumps([self.question, self.choices])
        return hashlib.sha256(text.encode()).hexdigest()[:12]


ParseRow = Callable[[Mapping[str, Any]], Iterator[RecordedRow]]


def read_recorded_rows(path: Path, parse_row: ParseRow) -> Iterator[RecordedRow]:
    """Yield the rows of a file in its order, with their samples numbered.

    Raises ValueError with the first row that `parse_row` cannot read.
    """
    n_answers: Counter[str] = Counter()
    is_json = path.name.removesuffix(".gz").endswith(".json")
    rows = read_json_file(path) if is_json else (row for _, row in iter_raw_rows(path))
    for number, row in enumerate(rows, start=1):
        try:
            parsed = list(parse_row(row))
        except (KeyError, TypeError, AttributeError) as exc:
            raise ValueError(
                f"{path} row {number} is not in the published format: {exc!r}"
            ) from exc
        for one in parsed:
            yield replace(one, sample=n_answers[one.question])
            n_answers[one.question] += one.text is not None


def list_examples(rows: Iterable[RecordedRow]) -> list[Example]:
    """Return one example per question and choices, in the order of their first appearance."""
    distinct = {}
    for row in rows:
        distinct.setdefault(row.id, Example(row.id, row.question, row.answer, row.choices))
    return list(distinct.values())


def iter_recordings(rows: Sequence[RecordedRow]) -> Iterator[dict[str, str]]:
    """Yield the recordings: by question, or by id where one text has several sets of choices."""
    choices = defaultdict(set)
    for row in rows:
        choices[row.question].add(row.choices)
    for row in rows:
        if row.text is not None:
            is_unique = len(choices[row.question]) == 1
            key = {"question": row.question} if is_unique else {"id": row.id}
            yield key | {"text": row.text}


def convert_recordings(description: str, parse_row: ParseRow) -> None:
    """Parse the command line and write the questions and, if named, the recordings."""
    parser = make_parser(description)
    parser.add_argument("--recordings", type=Path, help="the recorded answers, a new .jsonl file")
    options = parse_options(parser)
    rows = list(read_recorded_rows(options.file, parse_row))
    write_jsonl(options.output, map(to_row, list_examples(rows)))
    if options.recordings is not None:
        write_jsonl(options.recordings, iter_recordings(rows))
