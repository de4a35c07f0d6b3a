import numpy as np
import pytest

from answer_types import get_type
from bridgekd.errors import InputError
from bridgekd.io.dataset_reader import read_examples
from bridgekd.io.lazy_rows import LazyRows, collect_rows, open_rows
from bridgekd.io.row_files import ROW_GROUP_SIZE, read_rows, to_table, write_rows, write_tables
from bridgekd.recipe import ColumnNames
from bridgekd.records import Example
from conftest import write_jsonl

ROWS = [
    Example(f"{i:07d}", f"q{i}", None if i % 3 else "a", ("x", "y") if i % 2 else ())
    for i in range(2 * ROW_GROUP_SIZE + 5)
]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    write_rows(path, Example, iter(ROWS))
    return path


def test_rows_of_several_groups_are_read_as_written(file):
    rows = open_rows(file, Example)
    assert len(rows) == len(ROWS) and list(rows) == ROWS == read_rows(file, Example)
    assert (rows[0], rows[ROW_GROUP_SIZE], rows[-1]) == (ROWS[0], ROWS[ROW_GROUP_SIZE], ROWS[-1])
    assert (
        rows[ROW_GROUP_SIZE - 2 : ROW_GROUP_SIZE + 2]
        == ROWS[ROW_GROUP_SIZE - 2 : ROW_GROUP_SIZE + 2]
    )
    with pytest.raises(IndexError):
        rows[len(ROWS)]


def test_collected_rows_can_be_filtered_and_written(tmp_path):
    mask = np.arange(len(ROWS)) % 5 == 0
    selected = collect_rows(Example, iter(ROWS)).filter(mask)
    assert list(selected) == ROWS[::5]
    write_tables(tmp_path / "x.parquet", Example, selected.iter_tables())
    assert list(open_rows(tmp_path / "x.parquet", Example)) == ROWS[::5]


def test_empty_rows_are_rows(tmp_path):
    write_rows(tmp_path / "none.parquet", Example, [])
    assert (
        list(open_rows(tmp_path / "none.parquet", Example)) == [] == list(collect_rows(Example, []))
    )
    assert len(collect_rows(Example, ROWS[:3]).filter(np.zeros(3, dtype=bool))) == 0


def test_access_in_order_loads_each_group_once():
    tables = [to_table(ROWS[at : at + 10], Example) for at in (0, 10, 20)]
    loaded = []
    rows = LazyRows(Example, [10, 10, 10], lambda k: loaded.append(k) or tables[k])
    assert [rows[i] for i in range(30)] == ROWS[:30]
    assert loaded == [0, 1, 2]


def test_duplicate_id_is_named_with_both_places(tmp_path):
    path = write_jsonl(
        tmp_path / "x.jsonl",
        [{"id": i, "question": "q", "answer": "a"} for i in ("a", "b", "a")],
    )
    with pytest.raises(InputError, match=r"line 3: Duplicate id 'a', first used at .*line 1"):
        read_examples(path, ColumnNames(id="id"), get_type("text"))
