"""Data sets become rows, or an error with the place and the next step."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from answer_types import get_type
from bridgekd.errors import InputError
from bridgekd.io.dataset_reader import read_examples
from bridgekd.io.instruction_reader import read_instructions
from bridgekd.io.row_files import append_jsonl, read_appended_jsonl, read_rows, write_rows
from bridgekd.recipe import ColumnNames
from bridgekd.records import Example, Pick, Rationale
from conftest import write_jsonl

CHOICE = get_type("multiple_choice")
FIELDS = ColumnNames(question="q", answer="a", id="key", choices="options", domain="field")
ROW = {"key": 7, "q": " Which bird? ", "a": "B", "options": ["fox", "jay"], "field": "zoo"}
EXAMPLE = Example("7", "Which bird?", "jay", ("fox", "jay"), "zoo")


def test_same_row_is_read_from_jsonl_csv_and_parquet(tmp_path):
    write_jsonl(tmp_path / "x.jsonl", [ROW])
    cell = json.dumps(ROW["options"]).replace('"', '""')
    (tmp_path / "x.csv").write_text(f'key,q,a,options,field\n7, Which bird? ,B,"{cell}",zoo\n')
    pq.write_table(pa.Table.from_pylist([ROW]), tmp_path / "x.parquet")
    for suffix in ("jsonl", "csv", "parquet"):
        assert read_examples(tmp_path / f"x.{suffix}", FIELDS, CHOICE) == [EXAMPLE]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"q": "a", "a": "b"}\n{"q": "a", "a": \n', r"x\.jsonl line 2: Broken JSON at column"),
        ('{"q": "a", "a": "b"}\n\n[1]\n', r"line 3: Expected an object in braces, found \[1\]"),
        ('{"ques": "a", "a": "b"}', r"line 1: No column 'q'.*The row has ques, a"),
        ('{"Q": "a", "qq": "b"}', r"line 1: No column 'q'.*Did you mean 'qq'"),
        ('{"q": "a", "a": null}', r"line 1: The answer is missing"),
        ('{"q": "  ", "a": "b"}', r"line 1: The question is empty"),
        ("", r"x\.jsonl has no rows"),
    ],
)
def test_wrong_row_is_named_with_its_line(tmp_path, text, message):
    (tmp_path / "x.jsonl").write_text(text)
    with pytest.raises(InputError, match=message):
        read_examples(tmp_path / "x.jsonl", ColumnNames(question="q", answer="a"), get_type("text"))


def test_duplicate_ids_are_named_with_both_places(tmp_path):
    write_jsonl(tmp_path / "x.jsonl", [ROW, ROW])
    with pytest.raises(InputError, match=r"line 2: Duplicate id '7', first used at .*line 1"):
        read_examples(tmp_path / "x.jsonl", FIELDS, CHOICE)


@pytest.mark.parametrize(
    ("name", "answer", "message"),
    [
        ("number", "many", "'many' is not a number"),
        ("multiple_choice", "E", r"'E' is not a multiple_choice among \['fox', 'jay'\]"),
    ],
)
def test_answer_of_another_type_is_refused(tmp_path, name, answer, message):
    write_jsonl(tmp_path / "x.jsonl", [ROW | {"a": answer}])
    with pytest.raises(InputError, match=message):
        read_examples(tmp_path / "x.jsonl", FIELDS, get_type(name))


def test_gold_answer_is_number_after_mark_of_solution(tmp_path):
    rows = [{"q": "How many?", "a": "It is 3 or 4, so 3 and 4 make 7.\n#### 7"}]
    path = write_jsonl(tmp_path / "x.jsonl", rows)
    assert (
        read_examples(path, ColumnNames(question="q", answer="a"), get_type("number"))[0].answer
        == "7"
    )


def test_csv_row_with_stray_comma_is_named(tmp_path):
    (tmp_path / "x.csv").write_text("question,answer\nwhat, then?,2\n")
    with pytest.raises(InputError, match=r"x\.csv line 2: The header has 2 fields"):
        read_examples(tmp_path / "x.csv", ColumnNames(), get_type("text"))


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "Add.", "input": "1 2", "output": "3"},
        {"prompt": "Add.\n1 2", "completion": "3"},
        {
            "messages": [
                {"role": "user", "content": "Add.\n1 2"},
                {"role": "assistant", "content": "3"},
            ]
        },
    ],
)
def test_instructions_are_read_in_common_formats(tmp_path, row):
    write_jsonl(tmp_path / "i.jsonl", [row])
    (instruction,) = read_instructions(tmp_path / "i.jsonl").rows
    assert (instruction.prompt_text, instruction.response) == ("Add.\n1 2", "3")


def test_incomplete_last_line_is_removed(tmp_path):
    path = tmp_path / "log.jsonl"
    assert read_appended_jsonl(path) == []
    append_jsonl(path, [1, "one\n"])
    append_jsonl(path, [2, "two"])
    path.write_text(path.read_text()[:-3])
    for _ in range(2):
        assert read_appended_jsonl(path) == [[1, "one\n"]]
        append_jsonl(path, [3, "three"])
        assert read_appended_jsonl(path) == [[1, "one\n"], [3, "three"]]
        path.write_text(path.read_text()[:-4])


def test_rows_are_read_as_written(tmp_path):
    rationales = [
        Rationale("a", "text", "x", "teacher", True, "", None),
        Rationale("b", "", "", "assistant", False, "empty", 0.25),
    ]
    for row_type, rows in [(Rationale, rationales), (Example, [EXAMPLE]), (Pick, [])]:
        write_rows(tmp_path / "rows.parquet", row_type, rows)
        assert read_rows(tmp_path / "rows.parquet", row_type) == rows


def test_broken_gzip_file_is_named(tmp_path):
    complete = gzip.compress(b'{"question": 1, "answer": 2}\n' * 999)
    (tmp_path / "m.jsonl.gz").write_bytes(complete[:-20])
    with pytest.raises(InputError, match=r"m\.jsonl\.gz is not a complete gzip file"):
        read_examples(tmp_path / "m.jsonl.gz", ColumnNames(), get_type("text"))


def test_answer_can_be_index_of_choice(tmp_path):
    fields = ColumnNames(choices="choices")
    rows = [{"question": "q", "choices": ["x", "y"], "answer": 1}]
    assert read_examples(write_jsonl(tmp_path / "x.jsonl", rows), fields, CHOICE)[0].answer == "y"
    rows[0]["answer"] = 2
    with pytest.raises(InputError, match="is not a multiple_choice among"):
        read_examples(write_jsonl(tmp_path / "x.jsonl", rows), fields, CHOICE)


@pytest.mark.parametrize(
    ("choices", "answer", "gold"),
    [(["10", "20"], 1, None), (["2", "4", "0", "1"], 1, None), (["10", "20"], 0, "10"),
     (["0", "1"], 1, "1"), (["7", "8"], 8, "8"), (["2", "4", "0", "1"], "1", "1")],
)  # fmt: skip
def test_ambiguous_number_is_refused(tmp_path, choices, answer, gold):
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps({"question": "Q", "choices": choices, "answer": answer}))
    fields = ColumnNames(choices="choices")
    if gold is None and str(answer) in choices:
        with pytest.raises(InputError, match=r"is either the label or index of"):
            read_examples(path, fields, CHOICE)
    else:
        (example,) = read_examples(path, fields, CHOICE)
        assert example.answer == (gold or choices[answer])


def test_several_gold_labels_are_joined(tmp_path):
    path = write_jsonl(tmp_path / "x.jsonl", [{"question": "q", "answer": ["b", "a"]}])
    assert read_examples(path, ColumnNames(), get_type("multi_label"))[0].answer == "b; a"
