"""Rows that stay in Arrow columns and become dataclasses when they are used.

A pool of millions of rows is processed in groups, so the number of Python objects in memory does
not grow with the pool. Of a file, only one group is in memory. Collected rows are in memory as
Arrow, which needs about as much space as their text.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Generic, TypeVar, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bridgekd.io.damage import translate_damage
from bridgekd.io.row_files import check_schema, group_rows, to_rows, to_table

Row = TypeVar("Row")


class LazyRows(Sequence[Row], Generic[Row]):
    """Rows of one dataclass in groups of `sizes`. `load(k)` returns the columns of group k.

    Access in order is fast. Access to another group decodes that whole group.
    """

    def __init__(self, row_type: type[Row], sizes: Sequence[int], load: Callable[[int], pa.Table]):
        self._row_type = row_type
        self._load = load
        self._bounds = list(accumulate(sizes, initial=0))
        self._cached: tuple[int, list[Row]] = (-1, [])

    def __len__(self) -> int:
        return self._bounds[-1]

    def __iter__(self) -> Iterator[Row]:
        for table in self.iter_tables():
            yield from to_rows(table, self._row_type)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]  # a negative index counts from the end
        group = bisect_right(self._bounds, index) - 1
        if self._cached[0] != group:
            self._cached = (group, to_rows(self._load(group), self._row_type))
        return self._cached[1][index - self._bounds[group]]

    def filter(self, mask: np.ndarray) -> "LazyRows[Row]":
        """Return the rows where `mask` [n] is true, in memory as Arrow."""
        bounds = pairwise(self._bounds)
        tables = [
            table.filter(pa.array(mask[start:end]))
            for table, (start, end) in zip(self.iter_tables(), bounds, strict=True)
        ]
        return _wrap_tables(self._row_type, tables)

    def iter_tables(self) -> Iterator[pa.Table]:
        """Yield the columns of one group at a time."""
        return map(self._load, range(len(self._bounds) - 1))


def open_rows(path: Path, row_type: type[Row]) -> LazyRows[Row]:
    """Return the rows of a Parquet file. One row group at a time is read.

    Raises InputError, also while rows are read, if the file does not have such rows.
    """

    def load(group: int) -> pa.Table:
        with translate_damage(path):
            return file.read_row_group(group)

    with translate_damage(path):
        file = pq.ParquetFile(path)
        check_schema(file.schema_arrow, row_type)
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    return LazyRows(row_type, sizes, load)


def collect_rows(row_type: type[Row], rows: Iterable[Row]) -> LazyRows[Row]:
    """Return the rows of an iterable, in memory as Arrow."""
    return _wrap_tables(row_type, [to_table(group, row_type) for group in group_rows(rows)])


def _wrap_tables(row_type: type[Row], tables: Sequence[pa.Table]) -> LazyRows[Row]:
    tables = [table for table in tables if len(table)]
    return LazyRows(row_type, [len(table) for table in tables], tables.__getitem__)
