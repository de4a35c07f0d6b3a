"""The scripts of recipes/convert: published files as questions, recordings and instructions."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes" / "convert"))

from files import check_outputs, parse_options, read_test_questions, sample_questions
from files import make_parser as make_script_parser
from mentor_kd import read_mentor_kd
from palm540b_dss import read_palm540b_dss
from pubmedqa import read_pubmedqa
from recorded_answers import iter_recordings, list_examples
from self_instruct import read_self_instruct
from table import read_tables
from tatqa import read_tatqa

from bridgekd.recipe import ColumnNames
from bridgekd.records import Example
from conftest import write_jsonl

SCRIPTS = Path(__file__).parents[1] / "recipes" / "convert"
ASKED = "Who is it?\nWhich choice is true? Answer choices: (A) Ann, (B) Bob Lee, (C) Cy."
MENTOR = [
    {"input": ASKED, "chain": " He left. ", "completion": " (B).", "answer": "B",
     "initial_correct": True},
    {"input": ASKED, "chain": "She stays.", "completion": "A", "answer": "B",
     "initial_correct": False},
    {"input": "2 + 2?", "answer": "4"},
]  # fmt: skip
PALM = [
    {"input": "Ten beds of 45 seeds?", "gold": "( 10.0 * 45.0 )", "palm_correct": True,
     "palm_raw": "10 * 45 is 450. The answer is (10 * 45).\n\nQ: There are 15 trees.\nA: 6"},
    {"premise": "A man runs. ", "hypothesis": "He sits.", "gold": "contradiction",
     "palm_raw": "Not both.\nAnswer: contradiction\n\nPremise: A cat", "palm_correct": True},
    {"question": "What flies?", "choices": ["fox", "jay"], "gold": "jay", "palm_correct": True,
     "palm_raw": "So the answer is (b) jay."},
]  # fmt: skip


def packed(path, rows):
    path.write_bytes(gzip.compress(json.dumps(rows).encode()))
    return path


def test_samples_of_mentor_kd_are_numbered_and_their_answers_marked(tmp_path):
    first, second, bare = read_mentor_kd(packed(tmp_path / "m.json.gz", MENTOR))
    assert (first.question, first.choices) == ("Who is it?", ("Ann", "Bob Lee", "Cy"))
    assert (first.text, first.flag, first.sample) == ("He left.\nAnswer: (B).", True, 0)
    assert (second.text, second.flag, second.sample) == ("She stays.\nAnswer: A", False, 1)
    assert (bare.question, bare.answer, bare.text) == ("2 + 2?", "4", None)


def test_lists_of_outputs_are_samples_and_empty_list_is_question(tmp_path):
    rows = [{"instruction": ASKED, "output": ["a", "b"], "label": "B"},
            {"instruction": "1?", "output": [], "label": "1"}]  # fmt: skip
    found = list(read_mentor_kd(packed(tmp_path / "m.json.gz", rows)))
    assert [(r.text, r.sample) for r in found] == [("a", 0), ("b", 1), (None, 0)]


def test_texts_of_palm_end_before_next_question_and_equations_are_values(tmp_path):
    sums, nli, csqa = read_palm540b_dss(write_jsonl(tmp_path / "p.jsonl", PALM))
    assert (sums.answer, sums.text) == ("450", "10 * 45 is 450. The answer is (10 * 45).")
    assert nli.question == "Premise: A man runs.\nHypothesis: He sits."
    assert (nli.text, nli.choices[2]) == ("Not both.\nAnswer: contradiction", nli.answer)
    assert (csqa.choices, csqa.answer) == (("fox", "jay"), "jay")


def test_row_of_other_format_is_named(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", [*PALM, {"input": "1"}])
    with pytest.raises(ValueError, match=r"p\.jsonl row 4 is not in the published format"):
        list(read_palm540b_dss(path))


def test_recordings_are_found_by_question_or_by_id_where_choices_differ(tmp_path):
    other = MENTOR[0] | {"input": ASKED.replace("Cy", "Di")}
    for rows, keys in ((MENTOR, ["question"] * 2), ([*MENTOR, other], ["id"] * 3)):
        recorded = list(read_mentor_kd(packed(tmp_path / "m.json.gz", rows)))
        examples = list_examples(recorded)
        assert len(examples) == len(rows) - 1
        recordings = list(iter_recordings(recorded))
        assert [next(iter(row)) for row in recordings] == keys
        assert all(row[key] == getattr(examples[0], key)
                   for row, key in zip(recordings[:2], keys, strict=False))  # fmt: skip


def test_split_depends_on_texts_alone():
    examples = [Example(str(i), f"q{i % 30}", "a") for i in range(40)]
    chosen = sample_questions(examples, "20%")
    assert chosen == sample_questions(examples[::-1], 6) and len(chosen) == 6
    assert chosen != {f"q{i}" for i in range(6)}
    with pytest.raises(ValueError, match="leaves none"):
        sample_questions(examples, "100%")


def test_published_split_names_test_questions(tmp_path):
    examples = [Example(f"k{i}", f"q{i}", "a") for i in range(9)]
    split = packed(tmp_path / "ids.json.gz", {"k3": "yes", "k7": "no"})
    assert read_test_questions(examples, split) == {"q3", "q7"}
    every = [e.id for e in examples]
    for ids, message in ((["k3", "x"], "1 ids .* such as 'x'"), (every, "every"), (3, "a list")):
        with pytest.raises(ValueError, match=message):
            read_test_questions(examples, packed(tmp_path / "i.json.gz", ids))


def test_several_tables_are_named_by_folder_or_file(tmp_path):
    (tmp_path / "c").mkdir()
    rows = [{"question": "q", "answer": "a"}]
    paths = [write_jsonl(tmp_path / p, rows) for p in ("a.jsonl", "b.jsonl", "c/b.jsonl")]
    for pair, domains in ((paths[:2], ["a", "b"]), (paths[1:], [tmp_path.name, "c"])):
        examples = list(read_tables(pair, ColumnNames()))
        assert [e.domain for e in examples] == domains
        assert [e.id for e in examples] == [f"{domain}-0000000" for domain in domains]
    paths.append(write_jsonl(tmp_path / "c/a.jsonl", rows))
    assert len({e.id for e in read_tables(paths, ColumnNames())}) == 4


def test_questions_of_pubmedqa_and_tatqa_contain_their_contexts(tmp_path):
    row = {"QUESTION": "Does it?", "CONTEXTS": ["One.", "Two."], "final_decision": "maybe"}
    (medical,) = read_pubmedqa(packed(tmp_path / "p.json.gz", {"7": row}))
    assert (medical.id, medical.answer) == ("7", "maybe")
    assert medical.question == "One.\nTwo.\nQuestion: Does it?"
    questions = [
        {"uid": "a", "question": "Sales?", "answer": ["$1,496.5", "n/a"], "scale": "million",
         "answer_type": "multi-span"},
        {"uid": "b", "question": "Change?", "answer": -22.22, "scale": "percent",
         "answer_type": "arithmetic"},
    ]  # fmt: skip
    page = {"table": {"table": [["", "2019"], ["Sales", "9"]]}, "questions": questions,
            "paragraphs": [{"order": 1, "text": "It is so."}]}  # fmt: skip
    financial = list(read_tatqa(packed(tmp_path / "t.json.gz", [page])))
    assert [e.answer for e in financial] == ["$1,496.5 million; n/a", "-22.22%"]
    assert financial[0].question.startswith(" | 2019\nSales | 9\nIt is so.\nQuestion: Sales?")


def test_seed_tasks_are_one_instruction_per_instance(tmp_path):
    row = {"instruction": "Add.", "instances": [{"input": "1 1", "output": "2"}] * 2}
    rows = list(read_self_instruct(write_jsonl(tmp_path / "s.jsonl", [row])))
    assert rows == [{"instruction": "Add.", "input": "1 1", "output": "2"}] * 2


def run_script(folder, name, *arguments):
    """The exit code, output and error of a script."""
    done = subprocess.run(
        [sys.executable, SCRIPTS / f"{name}.py", *arguments],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_table_script_writes_both_sides(tmp_path):
    (tmp_path / "x.tsv").write_text("text\tlabel\n" + "".join(f"t{i}\tNo\n" for i in range(10)))
    columns = ["--column", "question=text", "--column", "answer=label"]
    command = ["x.tsv", *columns, "--question-suffix", "Yes?", "--output", "q.jsonl"]
    split = ["--test-size", "3", "--test-output", "t.jsonl"]
    code, out, _ = run_script(tmp_path, "table", *command, *split)
    assert (code, out) == (0, "Wrote 7 rows to q.jsonl\nWrote 3 rows to t.jsonl\n")
    (first, *_) = map(json.loads, (tmp_path / "t.jsonl").read_text().splitlines())
    assert first["question"].endswith("\nYes?") and first["answer"] == "No"
    assert run_script(tmp_path, "table", *command, "--force", "--test-size", "3")[0] == 2


def test_error_of_script_is_one_sentence(tmp_path):
    code, _, error = run_script(tmp_path, "mentor_kd", "none.json", "--output", "q.jsonl")
    assert code == 1 and error.startswith("Bad input: ") and "none.json" in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (["in.jsonl"], "is an input file"),
        (["./sub/../in.jsonl"], "is an input file"),
        (["new.jsonl", "link.jsonl"], "is an input file"),
        (["hard.jsonl"], "is an input file"),
        (["new.jsonl", "sub/../new.jsonl"], "is named as two outputs"),
    ],
)
def test_output_is_neither_input_nor_another_output(tmp_path, monkeypatch, outputs, message, force):
    monkeypatch.chdir(tmp_path)
    Path("sub").mkdir()
    Path("in.jsonl").write_text("kept")
    Path("link.jsonl").symlink_to("in.jsonl")
    Path("hard.jsonl").hardlink_to("in.jsonl")
    with pytest.raises(ValueError, match=message):
        check_outputs([Path("in.jsonl")], list(map(Path, outputs)), force=force)


@pytest.mark.parametrize("name", ["--output", "--test-output", "--recordings"])
def test_existing_output_is_replaced_only_with_force(tmp_path, monkeypatch, name):
    (tmp_path / "old.jsonl").write_text("kept")
    parser = make_script_parser("A script.", several=True)
    for option in ("--test-output", "--recordings"):
        parser.add_argument(option, type=Path)
    command = ["x", "a.csv", "b.csv", "--output", "new.jsonl", name, str(tmp_path / "old.jsonl")]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(ValueError, match="exists already"):
        parse_options(parser)
    monkeypatch.setattr(sys, "argv", [*command, "--force"])
    assert parse_options(parser).force


@pytest.mark.skipif("BRIDGEKD_DATA" not in os.environ, reason="BRIDGEKD_DATA is not set")
def test_every_published_recording_is_read():
    data = Path(os.environ["BRIDGEKD_DATA"])
    mentor = [p for folder in ("aug/*", "main", "prompt", "skeleton")
              for p in data.glob(f"mentor-kd/data/{folder}/*.json.gz")]  # fmt: skip
    palm = [p for p in data.glob("palm540b-dss/*.gz") if p.name != "SVAMP.json.gz"]
    if not mentor or not palm:
        pytest.skip("BRIDGEKD_DATA holds neither mentor-kd nor palm540b-dss")
    assert sum(1 for p in mentor for _ in read_mentor_kd(p)) > 40_000
    assert sum(1 for p in palm for _ in read_palm540b_dss(p)) > 40_000
