"""What the scripts of this folder share: published files in, the files that a recipe names out.

A split depends on a hash of the questions' texts alone. The same question is always on the same
side, in whatever file and order it comes.
"""

import argparse
import gzip
import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bridgekd import BridgekdError
from bridgekd.io.disk import write_atomic
from bridgekd.records import Example

OUTPUTS = ("output", "test_output", "recordings")  # the options that name a file to write


def read_json_file(path: Path) -> Any:
    """Return the one JSON value of a file that may be compressed with gzip."""
    open_file = gzip.open if path.suffix == ".gz" else open
    with open_file(path, "rt", encoding="utf-8") as file:
        return json.load(file)


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write one JSON line per row. Return the number of rows."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    write_atomic(path, "".join(lines), 0o666)
    print(f"Wrote {len(lines):,} rows to {path}")
    return len(lines)


def to_row(example: Example) -> dict[str, Any]:
    """Return a row with id, question, answer and, if the example has them, choices and domain."""
    row: dict[str, Any] = {"id": example.id, "question": example.question}
    row["answer"] = example.answer
    row |= {"choices": list(example.choices)} if example.choices else {}
    return row | ({"domain": example.domain} if example.domain else {})


def sample_questions(examples: Sequence[Example], size: int | str) -> set[str]:
    """Return `size` of the distinct questions, a number or a percentage, chosen by their hash.

    Raises ValueError if `size` is neither, or if no question would be left.
    """
    distinct = {example.question for example in examples}
    by_hash = sorted(distinct, key=lambda text: hashlib.sha256(text.encode()).hexdigest())
    n = _count(size, len(distinct))
    if n >= len(distinct):
        raise ValueError(f"A test set of {size} of {len(distinct)} questions leaves none to train.")
    return set(by_hash[:n])


def read_test_questions(examples: Sequence[Example], ids_file: Path) -> set[str]:
    """Return the questions of a published split: a JSON list of ids, or an object with ids as keys.

    Raises ValueError if an id is not in the examples, or if no question would be left.
    """
    ids = read_json_file(ids_file)
    if not isinstance(ids, list | dict):
        raise ValueError(f"{ids_file} is neither a list of ids nor an object with ids as keys.")
    named, known = {str(id) for id in ids}, {example.id for example in examples}
    if missing := sorted(named - known):
        raise ValueError(
            f"{ids_file}: {len(missing)} ids are not in the data, such as {missing[0]!r}. Pass the "
            "split of the same files."
        )
    if named == known:
        raise ValueError(f"{ids_file} names every question. Pass the ids of the test set alone.")
    return {example.question for example in examples if example.id in named}


def write_split(
    examples: Sequence[Example], output: Path, test_questions: set[str], test_output: Path | None
) -> None:
    """Write the test questions to `test_output` and all others to `output`."""
    write_jsonl(output, (to_row(e) for e in examples if e.question not in test_questions))
    if test_output is not None:
        write_jsonl(test_output, (to_row(e) for e in examples if e.question in test_questions))


def make_parser(description: str, *, several: bool = False) -> argparse.ArgumentParser:
    """Return a parser with the published file (or several of them) and --output."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    name, count = ("files", "+") if several else ("file", None)
    parser.add_argument(name, type=Path, nargs=count, help="as published, gzip or not")
    parser.add_argument("--output", type=Path, required=True, help="a new .jsonl file")
    parser.add_argument("--force", action="store_true", help="replace existing output files")
    return parser


def parse_options(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Return the options of a script after a check of its files. Raises ValueError."""
    options = parser.parse_args()
    outputs, inputs = [], []
    for name, value in vars(options).items():
        paths = value if isinstance(value, list) else [value]
        (outputs if name in OUTPUTS else inputs).extend(p for p in paths if isinstance(p, Path))
    check_outputs(inputs, outputs, force=options.force)
    return options


def check_outputs(inputs: Sequence[Path], outputs: Sequence[Path], *, force: bool = False) -> None:
    """Raise ValueError for an output that is an input or another output, or, unless `force`, exists
    already.
    """
    for i, output in enumerate(outputs):
        if any(_is_same(output, path) for path in inputs):
            raise ValueError(f"{output} is an input file. Name another output file.")
        if any(_is_same(output, path) for path in outputs[:i]):
            raise ValueError(f"{output} is named as two outputs. Name two different files.")
        if output.exists() and not force:
            raise ValueError(f"{output} exists already. Pass --force to replace it.")


def _is_same(path: Path, other: Path) -> bool:
    if path.resolve() == other.resolve():
        return True
    return path.exists() and other.exists() and path.samefile(other)


def run_script(main: Callable[[], None]) -> None:
    """Run a script. An error ends it with one sentence."""
    try:
        main()
    except (BridgekdError, EOFError, OSError, ValueError) as exc:
        sys.exit(f"Bad input: {exc}")


def _count(size: int | str, n: int) -> int:
    if isinstance(size, str) and size.endswith("%"):
        return math.ceil(float(size.removesuffix("%")) * n / 100 - 1e-9)
    return int(size)
