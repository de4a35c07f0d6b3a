"""The scripts of benchmarks/real: no test question in a base, tasks that plan, what they count."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bridgekd import api
from bridgekd.errors import InputError

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks" / "real"))

from pretraining_text import (
    Text,
    game_of,
    games_of_tests,
    questions_of_tests,
    refuse_tests,
    training_texts,
    without_tests,
)
from tasks import TASKS, prepare, read
from train_bases import PLANS, build, drill_rows, text_rows
from weak_assistant import Taught, likeness, table

TEST = 'How many seeds did "Paige" plant in all?'
GAME = (
    "Ann has a red ball, Bob has a blue ball. First, they swap. At the end of the game, {} has the"
)


@pytest.fixture
def data():
    if "BRIDGEKD_DATA" not in os.environ:
        pytest.skip("BRIDGEKD_DATA names no folder of published data sets")
    return Path(os.environ["BRIDGEKD_DATA"])


def test_a_text_that_holds_a_test_question_is_left_out_however_it_is_written():
    good = Text("a", "How many seeds did Paige plant?")
    written = (TEST, "how many seeds did Paige plant in all", f"Ten beds.\n{TEST} She has two.")
    bad = [Text("a", text) for text in written]
    assert without_tests([*bad, good], [TEST]) == [good]
    refuse_tests([good.text], [TEST])
    for text in bad:
        with pytest.raises(InputError, match="a test question stands in"):
            refuse_tests([good.text, text.text], [TEST])


def test_a_test_question_of_a_few_words_is_refused_where_it_is_the_whole_text():
    assert without_tests([Text("a", "Why not?"), Text("a", "Say why not now")], ["why not"]) == [
        Text("a", "Say why not now")
    ]


def test_a_game_is_the_same_whoever_is_asked_about():
    assert game_of(GAME.format("Ann")) == game_of(GAME.format("Bob"))
    assert game_of(GAME.format("Ann")) != game_of(GAME.format("Ann").replace("red", "green"))


def test_rows_of_text_hold_every_word_once_and_not_too_many():
    texts = [" ".join(f"w{i}x{j}" for j in range(n)) for i, n in enumerate((3, 250, 40, 90, 1))]
    rows = [row.spans[0].text.split() for row in text_rows(texts, 0)]
    assert sorted(w for row in rows for w in row) == sorted(w for t in texts for w in t.split())
    assert max(map(len, rows)) <= 100
    assert text_rows(texts, 0) == text_rows(texts, 0) != text_rows(texts, 1)


def test_drills_are_made_of_the_texts_own_words():
    words = [f"word{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(40)]
    (row, *_) = drill_rows([" ".join(words)], 5, 0, n_words=40, bare=1.0)
    assert set(row.spans[0].text.replace(".", "").split()) <= set(words)


def test_a_base_that_was_cut_short_between_lessons_ends_as_one_that_was_not(tmp_path, capsys):
    texts = [" ".join(f"w{i}{chr(97 + j)} has {j}" for j in range(12)) for i in range(12)]
    plan = replace(PLANS["student"], width=16, inner=16, epochs=1, n_drills=16)
    build("whole", plan, texts, tmp_path)
    build("cut", plan, texts, tmp_path)
    for name in ("cut/model.safetensors", "cut.lessons/text.json"):
        (tmp_path / name).unlink()
    build("cut", plan, texts, tmp_path)
    one, other = (tmp_path / n / "model.safetensors" for n in ("whole", "cut"))
    assert one.read_bytes() == other.read_bytes()
    assert "cut text" in capsys.readouterr().out


def test_no_base_text_holds_a_test_question_or_a_game_of_the_test(data):
    texts, games = training_texts(data), games_of_tests(data)
    assert len(texts) > 30_000
    refuse_tests((t.text for t in texts), questions_of_tests(data))
    assert not any(game_of(t.text) in games for t in texts)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_s_files_plan_with_all_its_answers_recorded(name, data, tmp_path):
    for size in ("assistant", "student"):
        (tmp_path / size).mkdir()
        (tmp_path / size / "config.json").write_text("{}")
    recipe = prepare(TASKS[name], data, tmp_path / name, tmp_path)
    told = api.plan(recipe, methods=["bridge", "direct_full"])
    assert told.needs_consent is False and all(p.n_unrecorded == 0 for p in told.purchases)
    tests = {row["question"] for row in read(tmp_path / name / "test.jsonl")}
    train = [row["question"] for row in read(tmp_path / name / "train.jsonl")]
    assert not tests & set(train) and len(set(train)) > 300
    assert read(tmp_path / name / "instruct.jsonl")[0].keys() == {"instruction", "input", "output"}


def test_uniform_rationales_have_fewer_distinct_threes():
    same, other = ["a has b .\nAnswer: b"] * 4, [f"a{i} has b .\nAnswer: b" for i in range(4)]
    assert likeness(same)[1] < likeness(other)[1] and likeness(same)[0] == likeness(other)[0] == 4


def test_the_table_holds_every_teacher_s_students_against_the_large_one_s():
    right = np.array([[1.0, 0.0] * 20, [1.0, 1.0] * 20])
    found = {"gpt-3.5": Taught(10, 5, right), "t5-large": Taught(9, 4, 1 - right),
             "flan-t5-large": Taught(9, 4, right)}  # fmt: skip
    lines = table(found).splitlines()
    assert len(lines) == 5 and "-50.0" in lines[3] and "+0.0" in lines[4]
