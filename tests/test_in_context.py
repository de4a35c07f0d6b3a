"""BOLT: in-context examples in the prompts of a local model, and what they cost."""

from dataclasses import replace

import pytest

from bridgekd import api
from bridgekd.errors import InputError
from bridgekd.io.artifact_store import Artifact
from bridgekd.io.row_files import write_rows
from bridgekd.recipe import TeacherOptions
from bridgekd.records import Example, Message, Rationale
from bridgekd.stages.in_context import choose_fitting_shots, read_shots, render_with_shots
from bridgekd.stages.run_context import RunContext
from conftest import write_jsonl
from tiny_models import write_tiny

POOL = [
    Example("a", "1 + 1?", "2"),
    Example("b", "Sky?", "blue", ("red", "blue")),
    Example("c", "C?"),
]
INSTRUCTION = "Think step by step, then give the answer."


@pytest.fixture
def shots(tmp_path):
    rows = [
        Rationale("b", "It is not red.", "blue", "teacher", True),
        Rationale("b", "Another text.", "blue", "teacher", True),
        Rationale("c", "Wrong.", "7", "teacher", False, "wrong answer: 7, not 8"),
        Rationale("a", "One more is two.", "2", "teacher", True),
    ]
    write_rows(tmp_path / "pool.parquet", Example, POOL)
    write_rows(tmp_path / "rationales.parquet", Rationale, rows)
    folder = Artifact("x", "x", tmp_path)
    write_jsonl(tmp_path / "shots.jsonl", [{"question": "Q?", "rationale": "R.", "answer": 5}])
    return read_shots(folder, [folder], [Artifact("file", "y", tmp_path / "shots.jsonl")])


def test_examples_are_turns_in_the_words_of_the_training_and_no_question_sees_its_own(shots):
    assert render_with_shots(POOL[0], shots) == (
        Message("user", f"Q?\n{INSTRUCTION}"),
        Message("assistant", "R.\nAnswer: 5"),
        Message("user", f"Sky?\n(A) red\n(B) blue\n{INSTRUCTION}"),
        Message("assistant", "It is not red.\nAnswer: (B) blue"),
        Message("user", f"1 + 1?\n{INSTRUCTION}"),
    )


def test_a_model_that_can_read_less_gets_fewer_examples(shots, tmp_path):
    """The tiny model has 512 positions and a token per byte of unknown text."""
    notes = []
    ctx = replace(
        RunContext("run", TeacherOptions(model="x"), tmp_path / "l.db"), notify=notes.append
    )
    model = Artifact("model", "m", write_tiny(tmp_path / "m"))
    n_shots = [
        len(choose_fitting_shots(shots, POOL, model, max_new_tokens, ctx))
        for max_new_tokens in (10, 250, 500)
    ]
    assert n_shots == sorted(n_shots, reverse=True) and n_shots[0] == 3 and n_shots[-1] == 0
    assert "its prompts have 0 of 3 in-context examples" in notes[-1]


def test_ten_examples_are_in_the_budget_and_among_the_questions_of_other_methods(task):
    (task / "instruct.jsonl").write_text('{"instruction": "Say a.", "response": "a"}\n')
    plan = api.plan(task / "task.yaml", methods=["bolt"], overrides=["budget.queries=20"])
    (purchase,) = plan.purchases
    limits = purchase.requests.limits
    assert (limits.queries, limits.accepted) == (20, 10)
    both = api.plan(task / "task.yaml", methods=["bolt", "direct"], overrides=["budget.queries=20"])
    assert sum(stage.stage == "select_questions" for stage in both.stages) == 1


def test_examples_of_a_file_cost_no_query_and_need_the_file(task):
    method = "method={name: bolt, examples: file}"
    with pytest.raises(InputError, match=r"needs a file in teacher\.prompt\.few_shot"):
        api.plan(task / "task.yaml", overrides=[method])
    write_jsonl(task / "shots.jsonl", [{"question": "Q?", "rationale": "R.", "answer": "5"}])
    sets = [method, "teacher.prompt.few_shot=shots.jsonl"]
    assert api.plan(task / "task.yaml", overrides=sets).purchases == ()
