"""A value of a data file is read as what it means, or refused with its place; never spelled out."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from answer_types import get_type
from bridgekd.errors import InputError
from bridgekd.io.dataset_reader import read_examples
from bridgekd.io.instruction_reader import read_instructions
from bridgekd.recipe import ColumnNames
from conftest import write_jsonl

COLORS = ("red", "blue", "green", "white")


def read(folder, row, name="text", **columns):
    path = folder / "rows.jsonl"
    write_jsonl(path, [{"question": "Which color?"} | row])
    return read_examples(path, ColumnNames(**columns), get_type(name))[0]


def choose(folder, choices, answer):
    row = {"choices": choices, "answer": answer}
    return read(folder, row, "multiple_choice", choices="choices")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"answer": {"a": 1}}, "line 1: The answer is {'a': 1}"),
        ({"answer": [["x"]]}, r"An answer of the list is \['x'\]"),
        ({"answer": float("inf")}, "The answer is inf"),
        ({"answer": float("nan")}, "The answer is missing"),
        ({"answer": []}, "The answer is missing"),
        ({"question": float("nan"), "answer": "x"}, r"column 'question' .* is empty"),
        ({"question": {"text": "Why?"}, "answer": "x"}, r"The question is \{'text': 'Why\?'\}"),
        ({"question": [], "answer": "x"}, r"The question is \[\]"),
        (
            {"question": [{"role": "system", "content": "Be kind."}], "answer": "x"},
            "The question is",
        ),
    ],
)
def test_what_is_no_text_number_or_truth_value_is_refused(tmp_path, row, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path, row)


def test_a_column_of_bytes_is_refused(tmp_path):
    pq.write_table(pa.table({"question": [b"Why?"], "answer": ["x"]}), tmp_path / "b.parquet")
    with pytest.raises(InputError, match=r"b.parquet row 1: The question is binary \(b'Why"):
        read_examples(tmp_path / "b.parquet", ColumnNames(), get_type("text"))


def test_a_long_value_is_shortened_in_a_message(tmp_path):
    with pytest.raises(InputError) as caught:
        read(tmp_path, {"answer": {"text": "x" * 10_000}})
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "question",
    [
        {"stem": "Which color?", "choices": []},
        [{"role": "user", "content": "Which color?"}],
        [{"from": "human", "value": "Which color?"}],
    ],
)
def test_a_question_may_be_a_stem_or_one_user_message(tmp_path, question):
    assert read(tmp_path, {"question": question, "answer": "red"}).question == "Which color?"


def list_forms(labels, texts):
    yield dict(zip(labels, texts, strict=True))
    yield {"label": list(labels), "text": list(texts)}
    for label, text in (("label", "text"), ("key", "value"), ("id", "content")):
        yield [{label: a, text: b} for a, b in zip(labels, texts, strict=True)]


@given(
    st.permutations(COLORS), st.integers(0, 3), st.sampled_from(["ABCD", "1234", "ACEF", "wxyz"])
)
def test_labels_decide_and_not_places(tmp_path_factory, texts, index, labels):
    folder = tmp_path_factory.mktemp("labels")
    for choices in list_forms(labels, texts):
        assert choose(folder, choices, labels[index]).answer == texts[index]


def test_letters_as_labels_decide_the_order(tmp_path):
    example = choose(tmp_path, {"C": "red", "A": "blue", "B": "green"}, "A")
    assert (example.choices, example.answer) == (("blue", "green", "red"), "blue")


@given(st.integers(0, 3))
def test_without_labels_a_letter_an_index_and_a_text_mean_a_choice(tmp_path_factory, index):
    folder = tmp_path_factory.mktemp("places")
    for answer in ("ABCD"[index], index, str(index), COLORS[index], f"({'ABCD'[index]})"):
        assert choose(folder, list(COLORS), answer).answer == COLORS[index]


def test_an_index_in_a_csv_cell_means_a_choice(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text(
        f'question,choices,answer\nWhich?,"{json.dumps(COLORS).replace(chr(34), chr(34) * 2)}",2\n'
    )
    (example,) = read_examples(path, ColumnNames(choices="choices"), get_type("multiple_choice"))
    assert example.answer == "green"


def test_a_choice_that_is_null_is_none(tmp_path):
    assert choose(tmp_path, {"A": "red", "B": "blue", "C": None}, "B").choices == ("red", "blue")
    assert choose(tmp_path, ["red", "blue", None], "B").choices == ("red", "blue")


@pytest.mark.parametrize(
    ("choices", "answer"), [(["B", "A", "C"], "A"), (["C", "A", "B"], "B"), (["1", "2", "0"], 1)]
)
def test_an_answer_that_means_two_choices_is_refused(tmp_path, choices, answer):
    with pytest.raises(InputError, match="is either the label or index of"):
        choose(tmp_path, choices, answer)


@pytest.mark.parametrize("name", ["text", "number", "math"])
@pytest.mark.parametrize("form", [list, lambda golds: {"text": golds, "answer_start": [3]}])
def test_a_list_of_answers_has_alternatives_any_of_which_is_correct(tmp_path, name, form):
    example, answer_type = read(tmp_path, {"answer": form(["12", "15"])}, name), get_type(name)
    assert (example.answer, example.alternatives) == ("12", ("15",))
    correct = [answer_type.matches_gold(answer, example) for answer in ("12", "15", "27")]
    assert correct == [True, True, False]


def test_a_list_of_labels_is_one_answer_and_a_list_for_one_label_is_refused(tmp_path):
    assert read(tmp_path, {"answer": ["b", "a"]}, "multi_label").answer == "b; a"
    with pytest.raises(InputError, match="The answer is a list of 2, and a label has one"):
        read(tmp_path, {"answer": ["b", "a"]}, "label")


@pytest.mark.parametrize("answer", [r"\sqrt{5}", "5:2", "(1,9]", "2021-04-03", "7 or 8"])
def test_a_gold_number_that_is_not_one_number_is_refused(tmp_path, answer):
    with pytest.raises(InputError, match=r"is not a number. .*data.answer_type: math"):
        read(tmp_path, {"answer": answer}, "number")


def test_a_cell_may_be_longer_than_the_limit_of_csv(tmp_path):
    (tmp_path / "long.csv").write_text(f'question,answer\n"{"long " * 40_000}",4\n')
    (example,) = read_examples(tmp_path / "long.csv", ColumnNames(), get_type("number"))
    assert len(example.question) == 199_999


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("question,answer,answer\nWhy?,1,2\n", "Two columns have the name 'answer'"),
        ("Why is it 4?,4\nWhy is it 5?,5\n", "A file without a header needs one"),
    ],
)
def test_a_header_that_cannot_be_meant_is_refused(tmp_path, text, message):
    (tmp_path / "h.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_examples(tmp_path / "h.csv", ColumnNames(), get_type("number"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("s.csv", "question;answer\nWhy?;4\n"),
        ("b.csv", "\n\r\nquestion;answer\n\nWhy?;4\n\n"),
        ("t.tsv", "question\tanswer\nWhy?\t4\n"),
        ("l.json", '[{"question": "Why?", "answer": 4}]'),
        ("d.json", '{"version": 1, "data": [{"question": "Why?", "answer": "4"}]}'),
        ("j.json", '{"question": "Why?", "answer": 4}\n{"question": "How?", "answer": 5}\n'),
    ],
)
def test_files_are_read_in_the_forms_that_people_have(tmp_path, name, text):
    (tmp_path / name).write_text("\ufeff" + text)
    first = read_examples(tmp_path / name, ColumnNames(), get_type("number"))[0]
    assert (first.question, first.answer) == ("Why?", "4")


USER, REPLY = {"role": "user", "content": "Name a fish."}, {"role": "assistant", "content": "Carp."}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}


@pytest.mark.parametrize(
    ("row", "prompt", "response"),
    [
        (
            {"messages": [USER, REPLY, {"role": "user", "content": "Bye!"}]},
            ["Name a fish."],
            "Carp.",
        ),
        (
            {"messages": [{"role": "system", "content": "Be brief."}, USER, REPLY, USER, REPLY]},
            ["Be brief.", "Name a fish.", "Carp.", "Name a fish."],
            "Carp.",
        ),
        ({"messages": [USER, REPLY, USER, REPLY | {"weight": 0}]}, ["Name a fish."], "Carp."),
        (
            {
                "conversations": [
                    {"from": "human", "value": "Hi"},
                    {"from": "gpt", "value": "Hello"},
                ]
            },
            ["Hi"],
            "Hello",
        ),
        (
            {"instruction": "When?", "context": "In May.", "response": "May"},
            ["When?\nIn May."],
            "May",
        ),
        ({"system": "Be brief.", "prompt": "Hi", "completion": "Ho"}, ["Be brief.", "Hi"], "Ho"),
        (
            {"messages": [USER, REPLY | {"content": [{"type": "text", "text": "Pike."}]}]},
            ["Name a fish."],
            "Pike.",
        ),
    ],
)
def test_a_chat_teaches_its_last_assistant_message_after_all_before_it(
    tmp_path, row, prompt, response
):
    write_jsonl(tmp_path / "i.jsonl", [row])
    (instruction,) = read_instructions(tmp_path / "i.jsonl").rows
    assert [message.content for message in instruction.prompt] == prompt
    assert instruction.response == response


def test_rows_that_cannot_be_used_are_skipped_and_counted(tmp_path):
    tool = {"messages": [USER, CALL, {"role": "tool", "content": "3"}, REPLY]}
    ignored = {"messages": [USER, REPLY | {"weight": 0}]}
    write_jsonl(tmp_path / "i.jsonl", [tool, {"messages": [USER, REPLY]}, ignored, tool])
    instructions = read_instructions(tmp_path / "i.jsonl")
    assert len(instructions.rows) == 1
    assert instructions.describe_skipped() == "3 rows were skipped: a tool call (2), weight 0 (1)"
    write_jsonl(tmp_path / "i.jsonl", [tool])
    with pytest.raises(
        InputError, match=r"no usable instruction. 1 rows were skipped: a tool call"
    ):
        read_instructions(tmp_path / "i.jsonl")
