"""Fuzz what a user writes: recipes, data files, instruction sets, recordings, few-shot examples and
files for `ledger import`, with mutations of files that this script makes.

    python tools/fuzz_inputs.py --n 10000
    python tools/fuzz_inputs.py --n 1 --start 1234 --keep case     # input 1234 again, and its files

An input is its seed: the same seed makes the same files. They are read in this process, by the
functions behind `plan` and `ledger import`, and in every fifth input by the command itself. A
finding is one of these:

- traceback: any exception but the project's own, or an exit code other than 0, 2 and 3
- hang: more than 5 seconds of processor time
- misread: the command accepts a file, and what it read is not what an independent reading of the
  same bytes finds (`read_bytes` here; for a recipe, the value that was written); or a file that
  must be refused is accepted
- refused: a file that must be read is refused
- message: an error that does not name the file, has control characters, or repeats a long value

`--n` inputs run in fresh processes of 500, so memory stays bounded. The exit code is 1 if there is
a finding. `tests/test_fuzz_inputs.py` runs a sample.
"""

import argparse
import contextlib
import csv
import gc
import gzip
import io
import json
import math
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bridgekd import api
from bridgekd.cli.main import main as run_command
from bridgekd.errors import BridgekdError
from bridgekd.grading.answer_type import load_answer_type
from bridgekd.io.dataset_reader import read_examples
from bridgekd.io.instruction_reader import read_instructions
from bridgekd.io.load_recipe import load_recipe
from bridgekd.ledger.export import export_ledger
from bridgekd.ledger.import_answers import import_answers
from bridgekd.ledger.spend import iter_attempts, open_snapshot
from bridgekd.ledger.verify import verify
from bridgekd.plans.plan import Plan
from bridgekd.recipe import ColumnNames, Recipe
from bridgekd.teacher.transports.replay import read_recording_file
from bridgekd.variants import VariantRef, VariantSettings

LIMIT_S = 5.0
GROUP = 500
WITH_COMMAND = 5  # one input in so many runs the command
MAX_MESSAGE = 1200  # characters; most of them are the path, twice
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
CHOICE_FIELDS = (("label", "key", "id"), ("text", "value", "option", "content"))
Row = dict[str, Any]
REFUSED = object()  # the meaning of a value that no recipe may have

RECIPE: dict[str, Any] = {
    "name": "fuzz",
    "method": "direct",
    "data": {"train": "train.jsonl", "test": "test.jsonl", "answer_type": "text"},
    "teacher": {"model": "large", "price": {"input": "2.5", "output": "10"}, "temperature": "0"},
    "budget": {"queries": "100%", "usd": "1"},
    "assistant": {"model": "model", "train": {"epochs": "2"}},
    "student": {"model": "model", "train": {"batch_size": "4"}},
    "select": {"strategy": "random"},
}
# The spelling of a value in YAML, and what it means.
YAML_VALUES: list[tuple[str, Any]] = [
    *[(text, json.loads(text)) for text in ("5", "0", "-1", "1.5", "true", "false", "null")],
    *[(text, json.loads(text)) for text in ("[1, 2]", "[]", "{}", '["a"]', '{"a": 1}', '"5"')],
    *[(text, json.loads(text)) for text in ('""', '" "', '"a b"', '"\\u00e9"', '"\\ud83d\\ude00"')],
    *[(text, text) for text in ("abc", "yes", "no", "2020-01-01", "2020-13-45", "1:30", "5%")],
    *[(text, text) for text in ("0.0000001%", "120%", "-5%", "~nosuchuser/x", "../x", "a.py")],
    *[(text, text) for text in ("x" * 300, "y" * 100_000, "[x", "x.jsonl", "sandbox", ".", "/")],
    ("~", None), ("", None), ("1e3", 1000.0), ("1_000", 1000), ("0x10", 16), ("0o17", 15),
    ("1e300", 1e300), ("1" + "0" * 30, 10**30), ("-0", 0), (".5", 0.5), ("!!str 5", "5"),
    ("{name: bridge}", {"name": "bridge"}), ("{file: a.py}", {"file": "a.py"}),
    ("{name: hardest, x: 1}", {"name": "hardest", "x": 1}), ("{1: 2}", {"1": 2}),
    ("{a: 2020-01-01}", {"a": "2020-01-01"}),
    *[(text, REFUSED) for text in (".inf", "-.inf", ".nan", "1e999", "9" * 5000, "!foo bar")],
    *[(text, REFUSED) for text in ("!!float x", "!!int maybe", "!!bool maybe", "0x" + "f" * 999)],
    *[(text, REFUSED) for text in ('"\\uD800"', '"\\0"', '"\\UFFFFFFFF"', "&a [*a]", "*nope", "'")],
    *[(text, REFUSED) for text in ("[" * 50, "[" * 3000, "{a: " * 3000, "@", "`", "{a: 1, a: 2}")],
    ("[&a [1, 1], &b [*a, *a], *b]", [[1, 1], [[1, 1], [1, 1]], [[1, 1], [1, 1]]]),
]  # fmt: skip
YAML_BOMB = "bomb: [&a0 [1,1], " + ", ".join(f"&a{i + 1} [*a{i}, *a{i}]" for i in range(40)) + "]"
TEXTS = (
    "What is 2 + 2?", "Wer ist's?", "日本語の質問", 'say "hi", then; go', "tab\there", "two\nlines",
    " blanks around ", "e\u0301 and é", "😀", "a,b;c", "#### 5", "'=1+1", "\u2028line", "0x1F",
    "007", "line\r\nend", "{}", "[1]", "null", "NaN", "<b>&amp;</b>", "\u202eright",
    "$\\frac{1}{2}$",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    *TEXTS, "", "  ", None, True, False, 0, -7, 3.5, 1e16, math.nan, math.inf, 10**30, 10**20,
    [], ["a"], ["a", "b"], ["a", None], [["a"]], [1, 2.5], {}, {"text": ["a", "b"]}, {"text": "a"},
    {"stem": "Why?"}, {"a": {"b": 1}}, [{"role": "user", "content": "Why?"}], "x" * 200_000,
    [{"role": "system", "content": "Why?"}], "A", "B", "(C)", "D.", "Z", "1", "3", 2, 99, "red",
    {"text": ["a", "b"], "label": ["1", "2"]}, {"A": "a", "B": None, "C": "c"}, ["a", "a"],
    [{"label": "B", "text": "x"}, {"label": "A", "text": "y"}], ["B", "A"], ["1", "0"], ["x"] * 27,
    ["A", "a"], '["p", "q"]', '{"A": 1, "A": 2}', "[1,", '["\\ud800", "x"]',
    "\ud800", ["\udfff"], "a\0b", "\x1b[2J", "\ufeffx",
)  # fmt: skip


JUNK = (
    b"\0", b"\xff", b"\xed\xa0\x80", b"\r", b"\n", b"\n\n", b'"', b",", b"{", b"[" * 3000, b"}",
    b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\x1b[2J", b"\x85", b" ", b"\t", b"9" * 5000, b"\\ud800",
    b"1e999", b"{" * 500, b'{"a":' * 1500, b":", b"'", b"#", b"-", b"&a ", b"*a", b"!!x ", b"|",
    b"\xe2\x80\xae", b"%", b"? ", b"<<: ", b"---\n", b"NaN", b">", b"\\",
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """What is wrong with the handling of one input."""

    seed: int
    kind: str
    what: str
    detail: str


@dataclass
class Input:
    """Files in a folder, and the command that reads them.

    check: returns the findings of an exit code and a plan: (what, detail).
    """

    arguments: list[str]
    files: list[Path]
    check: Callable[[int, Plan | None], Iterator[tuple[str, str]]]
    mutation: str = ""


class HangError(BaseException):
    """The time of one input is over."""


# --- an independent reading of data files


def read_bytes(data: bytes, name: str) -> list[Row] | None:
    """Return the rows of a file's bytes; None if they are no such file."""
    try:
        if name.endswith(".gz"):
            data, name = gzip.decompress(data), name.removesuffix(".gz")
        if name.endswith(".parquet"):
            return pq.read_table(io.BytesIO(data)).to_pylist()
        text = data.decode("utf-8-sig")
        if name.endswith(".jsonl"):
            return [_parse(line) for line in re.split("\r\n|\n|\r", text) if line.strip()]
        if name.endswith(".json"):
            rows = _parse(text)
            return rows if all(isinstance(row, dict) for row in rows) else None
        return _read_table(text, "\t" if name.endswith(".tsv") else ",")
    except (ValueError, TypeError, OSError, EOFError, RecursionError, csv.Error, zlib.error):
        return None
    except pa.ArrowException:
        return None


def _parse(text: str) -> Any:
    def build(pairs: list[tuple[str, Any]]) -> Row:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("double key")
        return dict(pairs)

    value = json.loads(text, object_pairs_hook=build)
    json.dumps(value, ensure_ascii=False).encode()
    return value


def _read_table(text: str, delimiter: str) -> list[Row] | None:
    first = next((line for line in re.split("\r\n|\n|\r", text) if line.strip()), "")
    if delimiter not in first and ";" in first:
        delimiter = ";"
    csv.field_size_limit(2**31 - 1)
    lines = [
        row for row in csv.reader(io.StringIO(text, ""), delimiter=delimiter, strict=True) if row
    ]
    header, *rows = lines or [[]]
    if len(set(header)) < len(header) or any(len(row) != len(header) for row in rows):
        return None
    return [dict(zip(header, row, strict=True)) for row in rows]


def find_meaning(row: Row, answer_type: str) -> tuple[str, set[str]] | None:
    """Return the question of a row and its possible answers; None for a row to refuse."""
    if not isinstance(row, dict):
        return None
    question = row.get("question")
    if isinstance(question, dict):
        question = question.get("stem")
    if isinstance(question, list) and len(question) == 1 and isinstance(question[0], dict):
        is_user = question[0].get("role", question[0].get("from")) in ("user", "human")
        question = question[0].get("content", question[0].get("value")) if is_user else None
    text, answer = _to_text(question), row.get("answer")
    if isinstance(answer, dict):
        answer = answer.get("text") if isinstance(answer.get("text"), list) else None
    parts = [_to_text(part) for part in (answer if isinstance(answer, list) else [answer])]
    if not text or not parts or None in parts:
        return None
    if answer_type == "multi_label" and isinstance(answer, list):
        parts = ["; ".join(map(str, parts))]
    if not any(parts):
        return None
    golds = {part for part in parts if part}
    if answer_type == "multiple_choice":
        pairs = _list_choices(row.get("choices"))
        if pairs is None:
            return None
        golds = set.union(*(_find_choices(gold, pairs) for gold in golds))
    return (text, golds) if golds else None


def _to_text(value: object) -> str | None:
    if not isinstance(value, str | int | float) or (
        isinstance(value, float) and not math.isfinite(value)
    ):
        return None
    return str(value).strip()


def _list_choices(value: object) -> list[tuple[str, str]] | None:
    """Return (label, text) of every choice that is not null; None if they are no choices."""
    if isinstance(value, str):
        try:
            value = _parse(value)
        except (ValueError, RecursionError):
            return None
    pairs: list[tuple[object, object]] = []
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        labels = value.get("label") or [""] * len(value["text"])
        if not isinstance(labels, list) or len(labels) != len(value["text"]):
            return None
        pairs = list(zip(labels, value["text"], strict=True))
    elif isinstance(value, dict):
        pairs = list(value.items())
    elif isinstance(value, list):
        for part in value:
            is_object = isinstance(part, dict)
            names = [[n for n in group if is_object and n in part] for group in CHOICE_FIELDS]
            label = part[names[0][0]] if names[0] else ""
            pairs.append((label, part[names[1][0]] if names[1] else part))
    known = [(label, text) for label, text in pairs if text is not None and text == text]
    texts = [(_to_text(label), _to_text(text)) for label, text in known]
    if not 2 <= len(texts) <= 26 or any(None in pair for pair in texts):
        return None
    return [(str(label), str(text)) for label, text in texts]


def _find_choices(answer: str, pairs: list[tuple[str, str]]) -> set[str]:
    """Return every choice that an answer may mean."""
    bare = answer.strip("(). ")
    names = {answer.casefold(), bare.casefold(), bare.partition(")")[2].strip().casefold()}
    found = {text for _, text in pairs if text.casefold().strip(".") in names}
    for index, (label, text) in enumerate(pairs):
        letter = LETTERS[index]
        if bare in (label, letter, str(index)) or bare.startswith((f"{letter})", f"{label})")):
            found.add(text)
    return found


# --- mutations


def write_rows(path: Path, rows: Sequence[Row], rng: random.Random) -> None:
    """Write rows in the format of the name."""
    name = path.name.removesuffix(".gz")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if name.endswith(".parquet"):
        whole = [{column: row.get(column) for column in columns} for row in rows]
        pq.write_table(pa.Table.from_pylist(whole), path)
        return
    if name.endswith(".jsonl"):
        text = "".join(json.dumps(row, ensure_ascii=rng.random() < 0.5) + "\n" for row in rows)
    elif name.endswith(".json"):
        text = json.dumps(rows, indent=rng.choice([None, 1]))
    else:
        buffer = io.StringIO()
        delimiter = "\t" if name.endswith(".tsv") else rng.choice(",,;")
        writer = csv.writer(buffer, delimiter=delimiter, lineterminator=rng.choice(["\n", "\r\n"]))
        writer.writerow(columns)
        writer.writerows([[_to_cell(row.get(c)) for c in columns] for row in rows])
        text = buffer.getvalue()
    data = text.encode("utf-8", "surrogatepass")
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def _to_cell(value: object) -> object:
    return json.dumps(value) if isinstance(value, list | dict) else value


def mutate_rows(rows: list[Row], rng: random.Random) -> str:
    """Change rows in place; return what was done."""
    index = rng.randrange(len(rows))
    row = rows[index]
    match rng.randrange(8):
        case 0 | 1 | 2:
            key, value = rng.choice(sorted(row)), rng.choice(VALUES)
            row[key] = value
            return f"row {index}: {key} = {str(value)[:40]!a}"
        case 3:
            key = rng.choice(sorted(row))
            del row[key]
            return f"row {index}: without {key}"
        case 4:
            rows.append(dict(row))
            return f"row {index} twice"
        case 5:
            row[rng.choice(["extra", "", "Question", " answer", "id\0", "answer.", "x" * 5000])] = 1
            return f"row {index}: another column"
        case 6:
            del rows[index]
            return f"row {index} removed"
    return "rows unchanged"


def mutate_bytes(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Return changed bytes, and what was done."""
    at = rng.randrange(len(data) + 1)
    lines = data.split(b"\n")
    n = rng.randrange(len(lines))
    junk = rng.choice(JUNK)
    match rng.randrange(12):
        case 0:
            return data[:at], f"cut at byte {at}"
        case 1:
            return data[:at] + junk + data[at:], f"{junk[:12]!a} at byte {at}"
        case 2:
            return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :], f"byte {at}"
        case 3:
            return b"\n".join([*lines[:n], lines[n], *lines[n:]]), f"line {n} twice"
        case 4:
            return b"\n".join([*lines[:n], *lines[n + 1 :]]), f"without line {n}"
        case 5:
            return b"\n".join([*lines[:n], junk, *lines[n:]]), f"{junk[:12]!a} before line {n}"
        case 6:
            return b"\xef\xbb\xbf" + data, "a byte order mark"
        case 7:
            return data.replace(b"\n", b"\r\n"), "CRLF"
        case 8:
            codec = rng.choice(["utf-16", "latin-1", "utf-32"])
            return data.decode("utf-8", "replace").encode(codec, "replace"), codec
        case 9:
            end = min(len(data), at + rng.randrange(1, 9))
            return data[:at] + data[end:], f"without bytes {at} to {end}"
        case 10:
            other = rng.randrange(len(lines))
            lines[n], lines[other] = lines[other], lines[n]
            return b"\n".join(lines), f"lines {n} and {other} swapped"
    return rng.choice([b"", b"\n", b"{}", b"[]", b"null", b"PAR1", junk]), "another file"


def mutate_file(path: Path, rng: random.Random) -> str:
    """Change a file's bytes; those inside of a gzip file in two of three."""
    data = path.read_bytes()
    is_gzip = path.suffix == ".gz" and read_bytes(data, path.name) is not None
    if is_gzip and rng.random() < 0.67:
        changed, what = mutate_bytes(gzip.decompress(data), rng)
        path.write_bytes(gzip.compress(changed))
    else:
        changed, what = mutate_bytes(data, rng)
        path.write_bytes(changed)
    return what


def mutate(path: Path, rows: list[Row], rng: random.Random) -> str:
    """Write rows with one mutation, of the rows or of the bytes."""
    before = [dict(row) for row in rows]
    what = mutate_rows(rows, rng) if rng.random() < 0.6 else ""
    try:
        write_rows(path, rows, rng)
    except (pa.ArrowException, OverflowError, UnicodeError):  # Parquet has no such rows
        what = ""
        texts = [{key: str(value) for key, value in row.items()} for row in before]
        write_rows(path, texts, rng)
    what = what or mutate_file(path, rng)
    return f"{what}; {mutate_file(path, rng)}" if rng.random() < 0.15 else what


# --- the kinds of input


def prepare(folder: Path, tree: dict[str, Any] = RECIPE) -> Path:
    """Write what every recipe needs; return its path."""
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    rows = [{"question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(8)]
    write_rows(folder / "train.jsonl", rows, random.Random(0))
    write_rows(folder / "test.jsonl", rows[:4], random.Random(0))
    path = folder / "r.yaml"
    path.write_text("\n".join(_format_tree(tree)) + "\n", encoding="utf-8", errors="surrogatepass")
    return path


def _format_tree(tree: dict[str, Any], indent: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield f"{indent}{key}:"
            yield from _format_tree(value, indent + "  ")
        else:
            yield f"{indent}{key}: {value}"


def _copy(tree: dict[str, Any]) -> dict[str, Any]:
    return {k: _copy(v) if isinstance(v, dict) else v for k, v in tree.items()}


def list_keys(
    model: Any = Recipe, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], set[object]]]:
    """Yield the path of every key of a recipe, and the types that its value may have."""
    for name, info in model.model_fields.items():
        options = (info.annotation, *getattr(info.annotation, "__args__", ()))
        yield (*path, name), set(options) | ({int} if float in options else set())
        for option in options:
            is_section = isinstance(option, type) and hasattr(option, "model_fields")
            if is_section and option is not VariantRef:
                yield from list_keys(option, (*path, name))


KEYS = list(list_keys())


def make_recipe_value(rng: random.Random, folder: Path) -> Input:
    """A recipe in which one key has another value, in the file or by --set."""
    path, kinds = rng.choice(KEYS)
    fitting = [pair for pair in YAML_VALUES if type(pair[1]) in kinds]
    text, meaning = rng.choice(fitting if fitting and rng.random() < 0.6 else YAML_VALUES)
    tree, sets = _copy(RECIPE), []
    if rng.random() < 0.3:
        sets = ["--set", f"{'.'.join(path)}={text}"]
    else:
        section = tree
        for key in path[:-1]:
            if not isinstance(section.get(key), dict):
                section[key] = {}
            section = section[key]
        section[path[-1]] = text
    recipe = prepare(folder, tree)

    def check(code: int, plan: Plan | None) -> Iterator[tuple[str, str]]:
        if code:
            return
        if meaning is REFUSED:
            yield "misread", f"{path} = {text[:40]!a} was accepted"
            return
        value: Any = load_recipe(recipe, sets[1:])
        for key in path:
            value = getattr(value, key, None)
        if not is_same(value, meaning):
            yield "misread", f"{path} = {text[:40]!a} was read as {str(value)[:60]!a}"

    command = ["plan", str(recipe), "--json", *sets]
    return Input(command, [recipe], check, f"{'.'.join(path)}: {text[:40]!a}")


def is_same(value: Any, meaning: Any) -> bool:
    """Return whether a recipe's value is what was written."""
    if isinstance(value, VariantRef):
        value = value.model_dump()
    if isinstance(value, bool) or isinstance(meaning, bool):
        words = ("true", "yes", "on", "1", "1.0") if value else ("false", "no", "off", "0", "-0")
        return isinstance(value, bool) and str(meaning).lower() in words
    if isinstance(value, str) and value.endswith("%"):
        return math.isclose(float(value[:-1]), float(str(meaning).strip(" %")), rel_tol=1e-5)
    if isinstance(value, int | float) and isinstance(meaning, int | float | str):
        return float(value) == float(meaning)
    if isinstance(value, list | tuple) and isinstance(meaning, list | tuple):
        return len(value) == len(meaning) and all(map(is_same, value, meaning))
    if isinstance(meaning, dict) and not isinstance(value, dict):
        return value is not None and all(is_same(getattr(value, k), v) for k, v in meaning.items())
    return bool(value == meaning)


def make_recipe_text(rng: random.Random, folder: Path) -> Input:
    """A recipe whose text is damaged."""
    recipe = prepare(folder)
    lines = recipe.read_text().splitlines()
    n, must_refuse = rng.randrange(len(lines)), True
    match rng.randrange(6):
        case 0:
            what = f"line {n} twice"
            recipe.write_text("\n".join([*lines[: n + 1], *lines[n:]]))
        case 1:
            what = "an unknown key"
            indent = re.match(" *", lines[n])[0]
            lines.insert(
                n, f"{indent}{rng.choice(['trian', 'x', 'Model', 'épochs', 'a' * 9999])}: 1"
            )
            recipe.write_text("\n".join(lines))
        case 2:
            what = "a bomb"
            recipe.write_text("\n".join([*lines, YAML_BOMB]))
        case _:
            what, must_refuse = mutate_file(recipe, rng), False
            if rng.random() < 0.3:
                what += f", {mutate_file(recipe, rng)}"

    def check(code: int, plan: Plan | None) -> Iterator[tuple[str, str]]:
        if must_refuse and not code:
            yield "misread", f"{what} was accepted"

    return Input(["plan", str(recipe), "--json"], [recipe], check, what)


def make_rows(rng: random.Random, answer_type: str, n: int = 10) -> list[Row]:
    """Return rows with questions and answers that differ."""
    rows: list[Row] = []
    for i in range(n):
        row: Row = {"question": f"{rng.choice(TEXTS).strip()} {i}", "answer": rng.choice(TEXTS)}
        if answer_type == "number":
            row["answer"] = rng.choice([i, str(i), f"{i},000", f"-{i}.5", f"1/{i + 1}"])
        if answer_type == "multiple_choice":
            row["choices"] = rng.sample(["red", "blue", "green", "4 apples", "none", "x\ny"], 4)
            index = rng.randrange(4)
            row["answer"] = rng.choice(
                [LETTERS[index], index, row["choices"][index], f"({LETTERS[index]})"]
            )
        rows.append(row)
    return rows


def make_data(rng: random.Random, folder: Path) -> Input:
    """A data file, for training or for the test."""
    answer_type = rng.choice(["text", "text", "label", "number", "multiple_choice", "multi_label"])
    suffix = rng.choice(
        ["jsonl", "jsonl", "json", "csv", "csv", "tsv", "parquet", "jsonl.gz", "csv.gz"]
    )
    role = rng.choice(["train", "test"])
    path = folder / f"rows.{suffix}"
    what = mutate(path, make_rows(rng, answer_type), rng)
    tree = _copy(RECIPE)
    tree["data"] |= {role: path.name, "answer_type": answer_type, "validation_size": "0"}
    columns: dict[str, str] = {"choices": "choices"} if answer_type == "multiple_choice" else {}
    if columns:
        tree["data"]["columns"] = columns
        other = "test" if role == "train" else "train"
        write_rows(
            folder / "other.jsonl", make_rows(random.Random(1), answer_type, 6), random.Random(0)
        )
        tree["data"][other] = "other.jsonl"
    recipe = prepare(folder, tree)
    rows = read_bytes(path.read_bytes(), path.name)
    meanings = None if rows is None else [find_meaning(row, answer_type) for row in rows]
    is_plain = answer_type == "text" and suffix != "parquet"

    def check(code: int, plan: Plan | None) -> Iterator[tuple[str, str]]:
        if not meanings or None in meanings:
            if not code:
                yield "misread", f"{what}: accepted a file that must be refused"
            return
        if code:
            if is_plain:
                yield "refused", f"{what}: a file that must be read"
            return
        grader = load_answer_type(VariantSettings(name=answer_type))
        examples = read_examples(path, ColumnNames(**columns), grader)
        if len(examples) != len(meanings):
            yield "misread", f"{what}: {len(examples)} rows of {len(meanings)}"
            return
        for number, (example, meaning) in enumerate(zip(examples, meanings, strict=True)):
            assert meaning is not None
            question, golds = meaning
            if example.question != question or not any(_is_gold(example.answer, g) for g in golds):
                found = f"{example.question[:40]!a}, {str(example.answer)[:40]!a}"
                yield "misread", f"{what}: row {number} is {found}; expected {str(meaning)[:90]!a}"
                return

    command = ["plan", str(recipe), "--json"]
    return Input(command, [recipe, path], check, f"{role} {answer_type} .{suffix}: {what}")


def _is_gold(answer: str | None, gold: str) -> bool:
    return answer == gold or (answer is not None and gold.rpartition("####")[2].strip() == answer)


def make_instructions(rng: random.Random, folder: Path) -> Input:
    """An instruction set of one of its shapes."""
    shape = rng.randrange(3)
    rows: list[Row] = []
    for i in range(8):
        ask, reply = f"{rng.choice(TEXTS).strip()} {i}", f"{rng.choice(TEXTS).strip()} {i}"
        chat = [{"role": "user", "content": ask}, {"role": "assistant", "content": reply}]
        shapes: list[Row] = [
            {"instruction": ask, "output": reply},
            {"prompt": ask, "completion": reply},
            {"messages": chat},
        ]
        rows.append(shapes[shape])
    suffix = rng.choice(["jsonl", "json", "csv", "parquet", "jsonl.gz"]) if shape < 2 else "jsonl"
    path = folder / f"instruct.{suffix}"
    what = mutate(path, rows, rng)
    tree = _copy(RECIPE)
    tree["student"]["instruction_data"] = path.name
    tree["method"] = "bridge"
    recipe, read = prepare(folder, tree), read_bytes(path.read_bytes(), path.name)

    def check(code: int, plan: Plan | None) -> Iterator[tuple[str, str]]:
        if code:
            return
        if read is None:
            yield "misread", f"{what}: accepted a file that must be refused"
            return
        found = read_instructions(path)
        if len(found.rows) + sum(found.skipped.values()) != len(read):
            yield "misread", f"{what}: {len(found.rows)} and {found.skipped} of {len(read)}"
        written = {str(v) for row in read for v in _list_texts(row)}
        lost = [row.response for row in found.rows if row.response not in written]
        if lost:
            yield "misread", f"{what}: {lost[0][:60]!a} is not in the file"

    return Input(["plan", str(recipe), "--json"], [recipe, path], check, f".{suffix}: {what}")


def _list_texts(value: object) -> Iterator[object]:
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _list_texts(part)
    else:
        yield value


def make_few_shot(rng: random.Random, folder: Path) -> Input:
    """A file of few-shot examples."""
    path = folder / "shots.jsonl"
    rows = [{"question": f"q{i}", "rationale": f"r{i}", "answer": f"{i}"} for i in range(4)]
    what = mutate(path, rows, rng)
    tree = _copy(RECIPE)
    tree["teacher"]["prompt"] = {"few_shot": path.name}
    recipe, read = prepare(folder, tree), read_bytes(path.read_bytes(), path.name)

    def check(code: int, plan: Plan | None) -> Iterator[tuple[str, str]]:
        names = ("question", "rationale", "answer")
        is_bad = read is None or not all(
            isinstance(row, dict) and isinstance(row.get(name), str | int | float)
            for row in read
            for name in names
        )
        if is_bad and not code:
            yield "misread", f"{what}: accepted a file that must be refused"

    return Input(["plan", str(recipe), "--json"], [recipe, path], check, what)


def make_answers(rng: random.Random, names: Sequence[str]) -> list[Row]:
    """Return recorded answers in the forms that the import and the replay share."""
    rows = []
    for name in names:
        text = f"{rng.choice(TEXTS).strip()}\nAnswer: {name}"
        usage = {"prompt_tokens": rng.randrange(1, 99), "completion_tokens": rng.randrange(1, 99)}
        message = {"role": "assistant", "content": text}
        body = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}
        forms: list[Row] = [{"response": body}, {"response": json.dumps(body)}]
        rows.append(rng.choice([*forms, {"text": text, "usage": usage}]))
    return rows


def make_recordings(rng: random.Random, folder: Path) -> Input:
    """Recordings of some of the questions; or the output file of a batch, and its input file."""
    args = [f"What is {i} + 1?" for i in range(8)]
    known = rng.sample(args, rng.randrange(1, 9))
    path, requests = folder / "recorded.jsonl", folder / "requests.jsonl"
    rows, questions = make_answers(rng, known), {}
    transport = {"name": "replay", "recordings": path.name}
    if rng.random() < 0.5:
        rows = [{"question": q} | answer for q, answer in zip(known, rows, strict=True)]
    else:
        questions = {f"c{i}": question for i, question in enumerate(known)}
        rows = [make_batch_result(rng, i, q) for i, q in questions.items()]
        transport["batch_input"] = requests.name
        bodies = {i: {"messages": [{"role": "user", "content": q}]} for i, q in questions.items()}
        write_rows(requests, [{"custom_id": i, "body": b} for i, b in bodies.items()], rng)
    what = mutate(path, rows, rng)
    if questions and rng.random() < 0.2:
        what += f"; requests: {mutate_file(requests, rng)}"
    tree = _copy(RECIPE)
    tree["teacher"]["transport"] = transport
    tree["data"]["validation_size"] = "0"
    recipe, read = prepare(folder, tree), read_bytes(path.read_bytes(), path.name)
    if questions:
        sent = read_bytes(requests.read_bytes(), requests.name)
        questions = {} if sent is None else _list_requests(sent)

    def check(code: int, plan: Plan | None) -> Iterator[tuple[str, str]]:
        if code:
            return
        if read is None or not all(isinstance(row, dict) for row in read):
            yield "misread", f"{what}: accepted a file that must be refused"
            return
        answers: dict[str, list[str]] = {}
        for row in read:
            question = row.get("question")
            if "custom_id" in row:
                result = row.get("response") or {}
                status = result.get("status_code", 200 if "choices" in str(result) else 504)
                question = questions[row["custom_id"]] if status == 200 else None
                row = {"response": result.get("body")}
            if question is not None:
                answers.setdefault(str(question).strip(), []).append(_find_recorded(row))
        if plan is not None and plan.purchases[0].n_unrecorded != len(set(args) - answers.keys()):
            n_missing, n_found = plan.purchases[0].n_unrecorded, len(answers.keys() & set(args))
            yield "misread", f"{what}: {n_missing} unrecorded, {n_found} of 8 recorded"
        file = read_recording_file(path, requests if requests.exists() else None)
        for question, texts in answers.items():
            recording = file.find("question", question, 0)
            found = None if recording is None else _find_text(recording.body)
            if found != texts[0]:
                yield "misread", f"{what}: {question!a} has {str(found)[:60]!a}, not {texts[0]!a}"

    return Input(["plan", str(recipe), "--json"], [recipe, path], check, what)


def make_batch_result(rng: random.Random, custom_id: str, question: str) -> Row:
    """Return a line of the output file of a batch; one in four failed."""
    text = f"It is so.\nAnswer: {question}"
    usage = {"prompt_tokens": rng.randrange(1, 99), "completion_tokens": rng.randrange(1, 99)}
    message = {"role": "assistant", "content": text}
    body: Row = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}
    response: Row | None = {"status_code": 200, "request_id": "r", "body": body}
    error: Row | None = None
    if rng.random() < 0.25:
        error = {"code": "batch_expired", "message": "It expired."}
        failed = {"status_code": 400, "body": {"error": {"message": "No."}}}
        response = rng.choice([None, failed])
    return {"id": "b", "custom_id": custom_id, "response": response, "error": error}


def _list_requests(rows: list[Row]) -> dict[str, str]:
    """Return the questions of the requests of a batch; {} if one is damaged."""
    try:
        args = {row["custom_id"]: row["body"]["messages"][-1]["content"].strip() for row in rows}
    except (KeyError, IndexError, TypeError, AttributeError):
        return {}
    return args if len(args) == len(rows) else {}


def _find_recorded(row: Row) -> str:
    return row["text"] if row.get("response") is None else _find_text(row["response"])


def make_import(rng: random.Random, folder: Path) -> Input:
    """A file for `ledger import`."""
    names = [f"n{i}" for i in range(6)]
    rows: list[Row] = []
    for name, answer in zip(names, make_answers(rng, names), strict=True):
        messages = [{"role": "user", "content": name}]
        request = {"model": "m", "messages": messages, "max_tokens": 90}
        price: Row = rng.choice([{"price": {"input": 1, "output": 2}}, {"cost_usd": 0.001}])
        rows.append({"request": request} | answer | price)
    if rng.random() < 0.4:
        inner = rng.choice(rows)["request"]
        key = rng.choice([*inner, "temperature", "n", "seed", "stop", "extra"])
        inner[key] = rng.choice(VALUES)
    path, ledger = folder / "answers.jsonl", folder / "l.db"
    if rng.random() < 0.4:
        rows = export_rows(rows, folder / "exported", rng)
    what = mutate(path, rows, rng)
    read = read_bytes(path.read_bytes(), path.name)

    def check(code: int, plan: Plan | None) -> Iterator[tuple[str, str]]:
        attempts = []
        if ledger.exists():
            with open_snapshot(ledger) as db:
                attempts = list(iter_attempts(db))
            if errors := verify(ledger).errors:
                yield "misread", f"{what}: the ledger has {errors[0]}"
        if code:
            if attempts:
                yield "misread", f"{what}: refused, and {len(attempts)} attempts imported"
            return
        if read is None:
            yield "misread", f"{what}: accepted a file that must be refused"
            return
        expected = {_find_answer(row) for row in read}
        found = {
            (json.loads(a.request)["messages"][0]["content"], _find_text(a.raw_response))
            for a in attempts
        }
        if found != expected:
            yield "misread", f"{what}: {str(found ^ expected)[:150]!a}"

    command = ["ledger", "import", str(path), "--ledger", str(ledger)]
    return Input(command, [path], check, what)


def export_rows(rows: list[Row], folder: Path, rng: random.Random) -> list[Row]:
    """Return the rows that `ledger export` writes for these answers; the rows if it cannot."""
    folder.mkdir()
    write_rows(folder / "a.jsonl", rows, rng)
    try:
        import_answers(folder / "a.jsonl", folder / "l.db")
        export_ledger(folder / "l.db", folder / "e.jsonl", force=False)
    except BridgekdError:
        return rows
    return [json.loads(line) for line in (folder / "e.jsonl").read_text().splitlines()]


def _find_answer(row: Row) -> tuple[str, str]:
    text = row["text"] if isinstance(row.get("text"), str) else _find_text(row["response"])
    return row["request"]["messages"][0]["content"], text


def _find_text(response: Any) -> str:
    body = json.loads(response) if isinstance(response, str) else response
    return str(body["choices"][0]["message"].get("content"))


KINDS: dict[str, Callable[[random.Random, Path], Input]] = {
    "recipe value": make_recipe_value,
    "recipe text": make_recipe_text,
    "data": make_data,
    "data 2": make_data,
    "instructions": make_instructions,
    "few-shot": make_few_shot,
    "recordings": make_recordings,
    "ledger import": make_import,
}


# --- running


def run_input(seed: int, folder: Path) -> tuple[str, int | None, list[Finding]]:
    """Return the kind of an input, its exit code, and what is wrong with its handling."""
    rng = random.Random(seed)
    kind = rng.choice(list(KINDS))
    case, kind = KINDS[kind](rng, folder), kind.removesuffix(" 2")
    found: list[tuple[str, str]] = []
    code, plan, message = None, None, ""
    try:
        with _limit_time():
            code, plan, message = _run(case, has_command=seed % WITH_COMMAND == 0)
    except HangError:
        found.append(("hang", f"more than {LIMIT_S:g} seconds"))
    except (Exception, SystemExit) as exc:  # noqa: BLE001
        found.append(("traceback", _describe(exc)))
    if code not in (None, 0, 2, 3):
        found.append(("traceback", f"exit code {code}"))
    if code is not None:
        try:
            found += case.check(code, plan)
        except Exception as exc:  # noqa: BLE001
            found.append(("misread", f"the check ended with {_describe(exc)}"))
    if code in (2, 3):
        found += _check_message(message, case)
    notes = [Finding(seed, kind, what, f"[{case.mutation}] {detail}") for what, detail in found]
    return kind, code, notes


def _run(case: Input, *, has_command: bool) -> tuple[int, Plan | None, str]:
    """Return the exit code, the plan if there is one, and the message of the error."""
    output, errors = io.StringIO(), io.StringIO()
    if has_command:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            return run_command(case.arguments), None, errors.getvalue()
    name, path, *options = case.arguments
    try:
        if name == "plan":
            return 0, api.plan(path, overrides=[o for o in options if "=" in o]), ""
        import_answers(case.files[0], case.files[0].with_name("l.db"))
    except BridgekdError as exc:
        return exc.exit_code, None, str(exc)
    return 0, None, ""


def _check_message(message: str, case: Input) -> Iterator[tuple[str, str]]:
    if len(message) > MAX_MESSAGE:
        yield "message", f"{len(message)} characters: {message[:200]!a}"
    if any(not (c.isprintable() or c == "\n") for c in message):
        yield "message", f"a control character: {message[:300]!a}"
    is_option = "--set" in message or "--set" in case.arguments
    folder = str(case.files[0].parent)
    names_key = re.search(rf"\b({'|'.join(Recipe.model_fields)})\.[a-z_]+", message)
    if not is_option and folder not in message and not names_key:
        yield "message", f"names no file: {message[:300]!a}"


def _describe(exc: BaseException) -> str:
    frames = traceback.extract_tb(exc.__traceback__)
    own = [f for f in frames if "bridgekd" in f.filename] or frames
    place = f"{Path(own[-1].filename).name}:{own[-1].lineno}"
    return f"{type(exc).__name__} at {place}: {str(exc)[:120]!a}"


@contextlib.contextmanager
def _limit_time() -> Iterator[None]:
    """Raise HangError after LIMIT_S seconds of processor time.

    The garbage collector is off meanwhile: what is raised in a callback of it is lost. So is what
    is raised in a finalizer, hence the timer goes on.
    """

    def stop(number: int, frame: object) -> None:
        raise HangError

    before = signal.signal(signal.SIGPROF, stop)
    gc.disable()
    try:
        signal.setitimer(signal.ITIMER_PROF, LIMIT_S, LIMIT_S)
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        gc.enable()
        signal.signal(signal.SIGPROF, before)


def run_seeds(
    seeds: Sequence[int],
    keep: Path | None = None,
    report: Callable[[int], object] = lambda seed: None,
) -> tuple[Counter[tuple[str, str]], list[Finding]]:
    """Return how many inputs of every kind were accepted or refused, and all findings."""
    counts, findings = Counter[tuple[str, str]](), list[Finding]()
    for seed in seeds:
        report(seed)
        with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
            kind, code, found = run_input(seed, Path(name))
            if keep is not None:
                shutil.copytree(name, keep, dirs_exist_ok=True)
        counts[kind, {0: "accepted", 2: "refused", 3: "refused"}.get(code or 0, "failed")] += 1
        findings += found
    return counts, findings


def run_group(first: int, n: int) -> tuple[Counter[tuple[str, str]], list[Finding]]:
    """Run the inputs of a group in a process of its own, which may die or never end."""
    with tempfile.TemporaryDirectory(prefix="fuzz-group-") as name:
        result = Path(name) / "result.json"
        command = [
            sys.executable,
            __file__,
            "--start",
            str(first),
            "--n",
            str(n),
            "--to",
            str(result),
        ]
        try:
            subprocess.run(command, timeout=n * 2 * LIMIT_S, check=False)
            printed = json.loads(result.read_text())
        except (subprocess.TimeoutExpired, OSError, ValueError):
            last = int((Path(name) / "result.seed").read_text())
            rest = Counter[tuple[str, str]]() if last + 1 >= first + n else None
            lost = Finding(last, "?", "hang", "the process died or did not end")
            counts, findings = (
                (rest, []) if rest is not None else run_group(last + 1, first + n - last - 1)
            )
            return counts, [lost, *findings]
    counts = Counter({(kind, end): k for kind, end, k in printed["counts"]})
    return counts, [Finding(**row) for row in printed["findings"]]


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n\n")[0])
    parser.add_argument("--n", type=int, default=1000, help="number of inputs")
    parser.add_argument("--start", type=int, default=0, help="the first seed")
    parser.add_argument("--keep", type=Path, help="keep the files of the last input here")
    parser.add_argument("--to", type=Path, help="write the counts as JSON instead of printing them")
    options = parser.parse_args()
    seeds = range(options.start, options.start + options.n)
    if options.to is not None:
        progress = options.to.with_suffix(".seed")
        counts, findings = run_seeds(seeds, report=lambda seed: progress.write_text(str(seed)))
        rows = [[kind, end, k] for (kind, end), k in counts.items()]
        options.to.write_text(json.dumps({"counts": rows, "findings": [vars(f) for f in findings]}))
        return 0
    counts, findings = Counter[tuple[str, str]](), list[Finding]()
    if options.keep is not None:
        counts, findings = run_seeds(seeds, options.keep)
        _print_findings(findings)
    for first in range(seeds.start, seeds.stop, GROUP) if options.keep is None else ():
        group, found = run_group(first, min(GROUP, seeds.stop - first))
        counts, findings = counts + group, findings + found
        _print_findings(found)
        print(f"{min(first + GROUP, seeds.stop) - seeds.start:,} inputs done", file=sys.stderr)
    for kind in sorted({kind for kind, _ in counts}):
        ends = ", ".join(f"{counts[kind, end]} {end}" for end in ("accepted", "refused", "failed"))
        print(f"{kind}: {ends}")
    for what, k in Counter(f.what for f in findings).most_common():
        print(f"{what}: {k}")
    return int(bool(findings))


def _print_findings(findings: Sequence[Finding]) -> None:
    for finding in findings:
        place = f"seed {finding.seed} ({finding.kind}) {finding.what}"
        print(f"{place}: {finding.detail[:400]}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
