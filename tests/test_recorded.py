"""Published formats: recordings and data sets, as questions, texts and the files a recipe names."""

import gzip
import json
import os
from pathlib import Path

import pytest

from bridgekd.cli import main
from bridgekd.config import Fields
from bridgekd.edges.converting import Targets, convert
from bridgekd.edges.data import load_examples
from bridgekd.edges.published import read_published
from bridgekd.edges.recorded import read_recorded
from bridgekd.errors import BadInput
from bridgekd.ledger.check import verify
from bridgekd.ledger.importing import Imported, Source, import_answers
from bridgekd.ledger.views import spend
from conftest import write_jsonl

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


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_mentor_kd_s_samples_are_numbered_and_their_answers_marked(tmp_path):
    first, second, bare = read_recorded(packed(tmp_path / "m.json.gz", MENTOR), "mentor-kd")
    assert (first.question, first.choices) == ("Who is it?", ("Ann", "Bob Lee", "Cy"))
    assert (first.text, first.flag, first.sample) == ("He left.\nAnswer: (B).", True, 0)
    assert (second.text, second.flag, second.sample) == ("She stays.\nAnswer: A", False, 1)
    assert (bare.question, bare.answer, bare.text) == ("2 + 2?", "4", None)


def test_mentor_kd_s_lists_of_outputs_are_samples_and_an_empty_one_a_question(tmp_path):
    rows = [{"instruction": ASKED, "output": ["a", "b"], "label": "B"},
            {"instruction": "1?", "output": [], "label": "1"}]  # fmt: skip
    found = list(read_recorded(packed(tmp_path / "m.json", rows).rename(
        tmp_path / "m.json.gz"), "mentor-kd"))  # fmt: skip
    assert [(r.text, r.sample) for r in found] == [("a", 0), ("b", 1), (None, 0)]


def test_palm_s_texts_end_where_the_next_question_begins_and_equations_are_values(tmp_path):
    sums, nli, csqa = read_recorded(write_jsonl(tmp_path / "p.jsonl", PALM), "palm540b-dss")
    assert (sums.answer, sums.text) == ("450", "10 * 45 is 450. The answer is (10 * 45).")
    assert nli.question == "Premise: A man runs.\nHypothesis: He sits."
    assert (nli.text, nli.choices[2]) == ("Not both.\nAnswer: contradiction", nli.answer)
    assert (csqa.choices, csqa.answer) == (("fox", "jay"), "jay")


def test_a_row_of_another_format_is_named(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", [*PALM, {"input": "1"}])
    with pytest.raises(BadInput, match=r"p\.jsonl row 4: not in the format palm540b-dss"):
        list(read_recorded(path, "palm540b-dss"))


def test_a_broken_gzip_file_is_named(tmp_path):
    whole = gzip.compress(b'{"question": 1, "answer": 2}\n' * 999)
    (tmp_path / "m.jsonl.gz").write_bytes(whole[:-20])
    with pytest.raises(BadInput, match=r"m\.jsonl\.gz is no whole gzip file"):
        load_examples(tmp_path / "m.jsonl.gz", Fields(), "text")


def test_recordings_become_questions_asked_once_and_answers_found_by_them(tmp_path):
    to = Targets(tmp_path / "q.jsonl", recordings=tmp_path / "r.jsonl")
    done = convert([packed(tmp_path / "m.json.gz", MENTOR)], "mentor-kd", to, ask="Say who.")
    assert (done.n_questions, done.n_recordings) == (2, 2)
    examples = load_examples(tmp_path / "q.jsonl", Fields(id="id"), "text")
    assert {row["question"] for row in lines(tmp_path / "r.jsonl")} == {examples[0].question}
    assert examples[0].question == "Who is it?\nSay who."


def test_a_text_with_several_sets_of_options_is_found_by_id(tmp_path):
    other = MENTOR[0] | {"input": ASKED.replace("Cy", "Di")}
    to = Targets(tmp_path / "q.jsonl", recordings=tmp_path / "r.jsonl")
    convert([packed(tmp_path / "m.json.gz", [*MENTOR, other])], "mentor-kd", to)
    ids = [row["id"] for row in lines(tmp_path / "q.jsonl")]
    assert [row["id"] for row in lines(tmp_path / "r.jsonl")] == [ids[0], ids[0], ids[2]]


def test_what_is_held_out_hangs_on_the_questions_alone(tmp_path):
    rows = [{"question": f"q{i % 30}", "answer": "a"} for i in range(40)]
    sides = []
    for name, order in (("a", rows), ("b", rows[::-1])):
        to = Targets(tmp_path / f"{name}.jsonl", tmp_path / f"{name}-test.jsonl")
        convert([write_jsonl(tmp_path / f"{name}-in.jsonl", order)], "rows", to, held_out="20%")
        sides.append([{r["question"] for r in lines(p)} for p in (to.questions, to.held_out)])
    assert sides[0] == sides[1] and len(sides[0][1]) == 6
    assert not sides[0][0] & sides[0][1]
    assert sides[0][1] != set(sorted(sides[0][0] | sides[0][1])[:6])  # no order but the hash's


def test_a_published_split_names_what_is_held_out(tmp_path):
    rows = [{"key": f"k{i}", "question": f"q{i}", "answer": "a"} for i in range(9)]
    source, fields = write_jsonl(tmp_path / "in.jsonl", rows), Fields(id="key")
    to = Targets(tmp_path / "a.jsonl", tmp_path / "a-test.jsonl")
    split = packed(tmp_path / "ids.json.gz", {"k3": "yes", "k7": "no"})
    done = convert([source], "rows", to, fields=fields, held_out=split)
    assert (done.n_questions, done.n_held_out) == (7, 2)
    assert [row["id"] for row in lines(to.held_out)] == ["k3", "k7"]
    every = [row["key"] for row in rows]
    for ids, message in ((["k3", "x"], "1 ids .* such as 'x'"), (every, "none"), (3, "a list")):
        with pytest.raises(BadInput, match=message):
            convert([source], "rows", to, fields=fields, held_out=packed(tmp_path / "i.gz", ids))


def test_several_files_are_told_apart_by_folder_or_name(tmp_path):
    (tmp_path / "c").mkdir()
    rows, to = [{"question": "q", "answer": "a"}], Targets(tmp_path / "q.jsonl")
    paths = [write_jsonl(tmp_path / p, rows) for p in ("a.jsonl", "b.jsonl", "c/b.jsonl")]
    for pair, domains in ((paths[:2], ["a", "b"]), (paths[1:], [tmp_path.name, "c"])):
        convert(pair, "rows", to)
        assert [row["domain"] for row in lines(to.questions)] == domains
        assert [row["id"] for row in lines(to.questions)] == [f"{d}-0000000" for d in domains]
    convert([*paths, write_jsonl(tmp_path / "c/a.jsonl", rows)], "rows", to)
    assert len({row["id"] for row in lines(to.questions)}) == 4
    with pytest.raises(BadInput, match="no such file"):
        convert([tmp_path / "none.tsv"], "rows", to)


def test_pubmedqa_and_tatqa_are_questions_with_their_contexts(tmp_path):
    row = {"QUESTION": "Does it?", "CONTEXTS": ["One.", "Two."], "final_decision": "maybe"}
    medical = list(read_published(packed(tmp_path / "p.json.gz", {"7": row}), "pubmedqa"))
    assert (medical[0].id, medical[0].answer) == ("7", "maybe")
    assert medical[0].question == "One.\nTwo.\nQuestion: Does it?"
    questions = [
        {"uid": "a", "question": "Sales?", "answer": ["$1,496.5", "n/a"], "scale": "million",
         "answer_type": "multi-span"},
        {"uid": "b", "question": "Change?", "answer": -22.22, "scale": "percent",
         "answer_type": "arithmetic"},
    ]  # fmt: skip
    page = {"table": {"table": [["", "2019"], ["Sales", "9"]]}, "questions": questions,
            "paragraphs": [{"order": 1, "text": "It is so."}]}  # fmt: skip
    financial = list(read_published(packed(tmp_path / "t.json.gz", [page]), "tatqa"))
    assert [e.answer for e in financial] == ["$1,496.5 million; n/a", "-22.22%"]
    assert financial[0].question.startswith(" | 2019\nSales | 9\nIt is so.\nQuestion: Sales?")


def test_seed_tasks_are_instructions_one_an_instance(tmp_path):
    row = {"instruction": "Add.", "instances": [{"input": "1 1", "output": "2"}] * 2}
    to = Targets(tmp_path / "i.jsonl")
    assert convert([write_jsonl(tmp_path / "s.jsonl", [row])], "self-instruct", to).n_questions == 2
    assert lines(to.questions)[1] == {"instruction": "Add.", "input": "1 1", "output": "2"}
    with pytest.raises(BadInput, match="row 1 is no task"):
        convert([write_jsonl(tmp_path / "s.jsonl", [{"x": 1}])], "self-instruct", to)


def test_options_may_be_meant_by_number_from_0(tmp_path):
    fields = Fields(choices="choices")
    rows = [{"question": "q", "choices": ["x", "y"], "answer": 1}]
    assert load_examples(write_jsonl(tmp_path / "x.jsonl", rows), fields, "choice")[0].answer == "y"
    rows[0]["answer"] = 2
    with pytest.raises(BadInput, match="no option from 0 to 1"):
        load_examples(write_jsonl(tmp_path / "x.jsonl", rows), fields, "choice")


@pytest.mark.parametrize(
    ("options", "answer", "gold"),
    [(["10", "20"], 1, None), (["2", "4", "0", "1"], 1, None), (["10", "20"], 0, "10"),
     (["0", "1"], 1, "1"), (["7", "8"], 8, "8"), (["2", "4", "0", "1"], "1", "1")],
)  # fmt: skip
def test_a_number_that_may_mean_two_options_is_refused(tmp_path, options, answer, gold):
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps({"question": "Q", "choices": options, "answer": answer}))
    fields = Fields(choices="choices")
    if gold is None and str(answer) in options:
        with pytest.raises(BadInput, match=r"may be the option '1' or, counted from 0,"):
            load_examples(path, fields, "choice")
    else:
        (example,) = load_examples(path, fields, "choice")
        assert example.answer == (gold or options[answer])


def test_several_gold_labels_are_joined(tmp_path):
    path = write_jsonl(tmp_path / "x.jsonl", [{"question": "q", "answer": ["b", "a"]}])
    assert load_examples(path, Fields(), "labels")[0].answer == "b; a"


def test_the_command_converts_and_says_what_it_wrote(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("x.tsv").write_text("text\tlabel\n" + "".join(f"t{i}\tNo\n" for i in range(10)))
    command = ["data", "convert", "x.tsv", "--format", "rows", "--to", "q.jsonl"]
    fields = ["--field", "question=text", "--field", "answer=label"]
    assert main([*command, *fields, "--held-out", "3", "--held-out-to", "t.jsonl"]) == 0
    assert "Wrote 7 rows to q.jsonl, 3 to t.jsonl" in capsys.readouterr().out
    for bad in (["--held-out", "3"], ["--recordings", "r"], ["--field", "colour=x"]):
        assert main([*command, *bad]) == 2
    assert main([*command[:4], "word", *command[5:]]) == 2


def test_recorded_answers_come_into_the_ledger_with_counted_tokens_and_a_dated_price(tmp_path):
    path, into = packed(tmp_path / "m.json.gz", MENTOR), tmp_path / "l.db"
    source = Source("mentor-kd", "gpt-3.5-turbo", "published")
    assert import_answers(path, into, source=source) == Imported(2, 0, 1)
    assert import_answers(path, into, source=source) == Imported(0, 2, 1)
    (row,) = spend(into)
    n_prompt, n_said = 10, 6  # a quarter of the bytes of the question and of each text
    assert (row.n_prompt_tokens, row.n_completion_tokens) == (2 * n_prompt, 6 + 5)
    assert row.elsewhere_microusd == sum(-(-(n_prompt * 5 + n * 15) // 10) for n in (n_said, 5))
    assert not verify(into).notes and not verify(into).findings


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Source("mentor-kd"), "give --model"),
        (Source("mentor-kd", "palm", "published"), "no published price of 'palm'"),
    ],
)
def test_who_answered_and_for_how_much_is_asked_for(tmp_path, source, message):
    with pytest.raises(BadInput, match=message):
        import_answers(packed(tmp_path / "m.json.gz", MENTOR), tmp_path / "l.db", source=source)


def test_a_line_may_have_a_text_and_usage_in_place_of_a_response(tmp_path):
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "2 + 2"}]}
    usage = {"prompt_tokens": 10, "completion_tokens": 4}
    path = write_jsonl(tmp_path / "f.jsonl", [{"request": body, "text": "4", "usage": usage}])
    import_answers(path, tmp_path / "l.db", source=Source(price="published"))
    assert [row.elsewhere_microusd for row in spend(tmp_path / "l.db")] == [65]


@pytest.mark.skipif("BRIDGEKD_DATA" not in os.environ, reason="BRIDGEKD_DATA is not set")
def test_every_recorded_file_is_read():
    data = Path(os.environ["BRIDGEKD_DATA"])
    mentor = [p for folder in ("aug/*", "main", "prompt", "skeleton")
              for p in data.glob(f"mentor-kd/data/{folder}/*.json.gz")]  # fmt: skip
    palm = [p for p in data.glob("palm540b-dss/*.gz") if p.name != "SVAMP.json.gz"]
    if not mentor or not palm:
        pytest.skip("BRIDGEKD_DATA holds neither mentor-kd nor palm540b-dss")
    assert sum(1 for p in mentor for _ in read_recorded(p, "mentor-kd")) > 40_000
    assert sum(1 for p in palm for _ in read_recorded(p, "palm540b-dss")) > 40_000
