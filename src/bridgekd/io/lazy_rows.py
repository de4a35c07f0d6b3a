"""Rows that stay in columns and become dataclasses as they are looked at.

The one idea: a pool of millions is gone through in groups of GROUP rows, so that what is in memory
as Python objects never grows with it. From a file only one group is held; gathered rows are held as
Arrow, which is about their text.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, islice
from pathlib import Path
from typing import Generic, TypeVar, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bridgekd.io.row_files import ROW_GROUP_SIZE, to_rows, to_table

Row = TypeVar("Row")


class LazyRows(Sequence[Row], Generic[Row]):
    """The rows of one dataclass in groups of `sizes`; `load` gives a group's columns.

    Going through them in order is cheap; a jump to another group decodes that whole group.
    """

    def __init__(self, kind: type[Row], sizes: Sequence[int], load: Callable[[int], pa.Table]):
        self._kind = kind
        self._load = load
        self._ends = list(accumulate(sizes))
        self._held: tuple[int, list[Row]] = (-1, [])

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __iter__(self) -> Iterator[Row]:
        for number in range(len(self._ends)):
            yield from to_rows(self._load(number), self._kind)

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> list[Row]: ...
    def __getitem__(self, place: int | slice) -> Row | list[Row]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        place = range(len(self))[place]
        number = bisect_right(self._ends, place)
        if self._held[0] != number:
            self._held = (number, to_rows(self._load(number), self._kind))
        group = self._held[1]
        return group[place - self._ends[number] + len(group)]

    def filter(self, mask: np.ndarray) -> "LazyRows[Row]":
        """The rows where `mask` [n] is true, held as Arrow."""
        kept, start = [], 0
        for number, end in enumerate(self._ends):
            kept.append(self._load(number).filter(pa.array(mask[start:end])))
            start = end
        return _hold_tables(self._kind, kept)

    def iter_tables(self) -> Iterator[pa.Table]:
        """The columns, a group at a time."""
        return map(self._load, range(len(self._ends)))


def open_rows(path: Path, kind: type[Row]) -> LazyRows[Row]:
    """The rows of a file, of which one group at a time is read."""
    file = pq.ParquetFile(path)
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    return LazyRows(kind, sizes, file.read_row_group)


def collect_rows(kind: type[Row], rows: Iterable[Row]) -> LazyRows[Row]:
    """Rows that come one by one, held as Arrow."""
    coming = iter(rows)
    return _hold_tables(kind, [to_table(group, kind) for group in _groups(coming)])


def _groups(coming: Iterator[Row]) -> Iterator[list[Row]]:
    while group := list(islice(coming, ROW_GROUP_SIZE)):
        yield group


def _hold_tables(kind: type[Row], tables: Sequence[pa.Table]) -> LazyRows[Row]:
    full = [table for table in tables if len(table)]
    return LazyRows(kind, [len(table) for table in full], full.__getitem__)
