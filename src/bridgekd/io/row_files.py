"""Rows on disk: dataclass rows to Parquet and back, and JSON lines read with their line numbers."""

import dataclasses
import gzip
import hashlib
import io
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bridgekd.errors import InputError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Row = TypeVar("Row")
ROW_GROUP_SIZE = 16_384  # rows in a row group: what is read at once
_ARROW_TYPES = {
    "str": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "tuple[str, ...]": pa.list_(pa.string()),
}


def write_rows(path: Path, kind: type[Row], rows: Iterable[Row]) -> None:
    """Writes rows of one dataclass, a group at a time; the same rows give the same bytes."""
    coming = iter(rows)
    write_tables(path, kind, (to_table(g, kind) for g in iter(lambda: _take_group(coming), [])))


def write_tables(path: Path, kind: type[Row], tables: Iterable[pa.Table]) -> None:
    """`write_rows` for rows that are in columns already, a table a group."""
    with pq.ParquetWriter(path, _schema(kind)) as writer:
        for table in tables:
            writer.write_table(table)


def to_table(rows: Sequence[Row], kind: type[Row]) -> pa.Table:
    """Rows as columns."""
    schema = _schema(kind)
    columns = [[getattr(row, name) for row in rows] for name in schema.names]
    arrays = [pa.array(c, type=f.type) for c, f in zip(columns, schema, strict=True)]
    return pa.table(arrays, schema=schema)


def write_columns(path: Path, kind: type[Row], columns: Mapping[str, np.ndarray]) -> None:
    """`write_rows` for rows that are in columns, one array a field; a masked place is None."""
    schema = _schema(kind)
    arrays = [
        pa.array(np.ma.getdata(column), type=field.type, mask=np.ma.getmaskarray(column))
        for field, column in ((field, columns[field.name]) for field in schema)
    ]
    pq.write_table(pa.table(arrays, schema=schema), path, row_group_size=ROW_GROUP_SIZE)


def read_column(path: Path, kind: type[Row], name: str) -> list[Any]:
    """One field of all rows, without the others."""
    _schema(kind).field(name)  # a field of that kind
    return list(pq.read_table(path, columns=[name]).column(name).to_pylist())


def read_rows(path: Path, kind: type[Row]) -> list[Row]:
    """The rows as they were written, all of them."""
    return to_rows(pq.read_table(path), kind)


def to_rows(table: pa.Table, kind: type[Row]) -> list[Row]:
    """Columns as rows."""
    columns = [table.column(name).to_pylist() for name in table.column_names]
    listed = {f.name for f in _schema(kind) if pa.types.is_list(f.type)}
    return [
        kind(
            **{
                n: tuple(v) if n in listed else v
                for n, v in zip(table.column_names, row, strict=True)
            }
        )
        for row in zip(*columns, strict=True)
    ]


def read_jsonl(
    path: Path, sha256: "hashlib._Hash | None" = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of every line that is not empty; InputError names the line that is
    broken. `sha256` gets the bytes of the file.
    """
    with open_text(path, sha256=sha256) as file, translate_utf8_errors(path):
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, _object(path, number, line)


class _HashedFile(io.FileIO):
    """A file whose bytes are hashed as they are read, so that one reading gives both."""

    def __init__(self, path: Path, sha256: "hashlib._Hash") -> None:
        super().__init__(path)
        self._sha256 = sha256

    def readinto(self, buffer: "WriteableBuffer") -> int | None:
        n = super().readinto(buffer)
        self._sha256.update(memoryview(buffer)[: n or 0])
        return n


@contextmanager
def open_text(
    path: Path, newline: str | None = None, sha256: "hashlib._Hash | None" = None
) -> Iterator[TextIO]:
    """A text file to read, gzip-ed if its name ends in .gz; `newline` as in `open`."""
    raw = io.FileIO(path) if sha256 is None else _HashedFile(path, sha256)
    with io.BufferedReader(raw) as packed:
        if path.suffix.lower() != ".gz":
            with io.TextIOWrapper(packed, "utf-8-sig", newline=newline) as file:
                yield file
            return
        try:
            with gzip.open(packed, "rt", newline=newline, encoding="utf-8-sig") as unpacked:
                yield unpacked
        except (gzip.BadGzipFile, EOFError, zlib.error) as exc:
            raise InputError(f"{path} is no whole gzip file ({exc}); fetch it again") from exc


@contextmanager
def translate_utf8_errors(path: Path) -> Iterator[None]:
    """Turns text that is not UTF-8 into one sentence."""
    try:
        yield
    except UnicodeDecodeError as exc:
        raise InputError(f"{path} is not UTF-8 text ({exc.reason}); save it as UTF-8") from exc


def append_jsonl(path: Path, row: object) -> None:
    """Adds one JSON line that survives a power cut."""
    with open(path, "ab") as file:
        file.write(json.dumps(row).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_appended_jsonl(path: Path) -> list[Any]:
    """What `append_json` wrote; a last line that was cut off is taken out of the file."""
    if not path.is_file():
        return []
    whole = path.read_bytes().rpartition(b"\n")[0]
    lines = whole.split(b"\n") if whole else []
    if path.stat().st_size > len(whole) + 1:
        os.truncate(path, len(whole) + bool(lines))
    return [json.loads(line) for line in lines]


def _take_group(coming: Iterator[Row]) -> list[Row]:
    return list(islice(coming, ROW_GROUP_SIZE))


def _object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as exc:
        raise InputError(
            f"{path} line {number}: broken JSON at column {exc.colno} ({exc.msg}); "
            "mend or remove the line"
        ) from exc
    except RecursionError as exc:
        raise InputError(f"{path} line {number}: nested too deeply; mend or remove it") from exc
    if "\\ud" in line.lower() and not _is_valid_utf8(row):
        raise InputError(
            f"{path} line {number}: half of a surrogate pair (\\ud800 to \\udfff) is no "
            f"character; mend or remove the line"
        )
    if not isinstance(row, dict):
        raise InputError(f"{path} line {number}: expected an object in braces, found {line[:40]!r}")
    return row


def _is_valid_utf8(row: object) -> bool:
    """Whether all strings in a JSON value can be written as UTF-8."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _schema(kind: type[Row]) -> pa.Schema:
    hints = get_type_hints(kind)
    fields = []
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        hint = hints[field.name]
        name = (
            hint.__name__ if isinstance(hint, type) and not hasattr(hint, "__args__") else str(hint)
        )
        plain = name.removesuffix(" | None")
        fields.append(pa.field(field.name, _ARROW_TYPES[plain], nullable=plain != name))
    return pa.schema(fields)
