"""Asking a run's models: those of the run, asked as they were trained, in a table or a sentence."""

import io
import os
import subprocess
import sys

import pytest

import bridgekd
from answer_types import get_type
from bridgekd import lm
from bridgekd.cli.main import main
from bridgekd.errors import InputError
from bridgekd.io.artifact_store import Artifact
from bridgekd.prompts import render_answer_prompt, render_cot_prompt
from bridgekd.records import Example
from bridgekd.runs.ask import LoadedModels
from bridgekd.runs.metadata import EvaluatedModel
from bridgekd.stages.evaluate import ArmSettings
from bridgekd.stages.predict import PredictSettings
from tiny_models import write_tiny

ASKED = Example("a", "Who holds the box ?")


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    return lm.load_model(write_tiny(tmp_path_factory.mktemp("m")), device="cpu")


@pytest.fixture
def panel(local, tmp_path):
    """One model asked to explain, and the same asked for the answer alone."""

    def of(name="text"):
        model = Artifact("train_student", "1", tmp_path)
        arm = ArmSettings(name="bridge", title="Student, BRIDGE")
        models = (
            EvaluatedModel(
                "bridge",
                arm,
                model,
                PredictSettings(role="student", prompt_mode=prompt_mode, max_new_tokens=6),
            )
            for prompt_mode in ("cot", "answer_only")
        )
        return LoadedModels(get_type(name), tuple((model, local) for model in models))

    return of


def written(local, prompt):
    return lm.generate_texts(local, [prompt], max_new_tokens=6, batch_size=1)[0]


def test_each_model_is_asked_as_it_was_trained(local, panel):
    joint, two_task = panel().ask(ASKED.question)
    assert joint.rationale == two_task.rationale == written(local, render_cot_prompt(ASKED))
    assert joint.model == "Student, BRIDGE"
    assert written(local, render_cot_prompt(ASKED)) != written(local, render_answer_prompt(ASKED))


@pytest.mark.parametrize(
    ("name", "question", "choices", "complaint"),
    [
        ("multiple_choice", "Which?", [], "questions of this task have options"),
        ("multiple_choice", "Which?", ["one"], "1 options given; a question has 2 to 26, or none"),
        ("text", "  ", [], "the question is empty"),
    ],
)
def test_a_question_that_cannot_be_is_a_sentence(panel, name, question, choices, complaint):
    with pytest.raises(InputError, match=complaint):
        panel(name).ask(question, choices)


def test_options_are_shown_as_in_the_training(local, panel):
    example = Example("a", "Which ?", choices=("red box", "lazy dog"))
    (reply, _) = panel("multiple_choice").ask("Which ?", ["red box", " lazy dog "])
    assert reply.rationale == written(local, render_cot_prompt(example))


def test_a_student_is_asked_beside_its_assistant_and_its_base(runs, capsys):
    panel = bridgekd.load_models("tiny", store=runs)
    assert [arm.name for arm, _ in panel.models] == ["bridge", "assistant", "student_base"]
    replies = panel.ask("Where is Ann?")
    assert main(["ask", "tiny", "Where is Ann?", "--store", str(runs)]) == 0
    shown = capsys.readouterr().out
    assert all(reply.model in shown and reply.rationale[:9] in shown for reply in replies)


def test_questions_are_read_line_by_line_where_none_is_given(runs, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("Where is Ann?\nWho is Bob?\n\nnever read\n"))
    assert main(["ask", "tiny", "--arm", "direct", "--store", str(runs)]) == 0
    printed = capsys.readouterr()
    assert "Where is Ann?" in printed.out and "Who is Bob?" in printed.out
    assert printed.out.count("Student, direct") == 2
    assert "never read" not in printed.out and "Assistant" not in printed.out
    assert printed.err == ""


ABSENT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "transformers", "peft"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from bridgekd.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("command", [["export", "tiny", "--to", "out"], ["ask", "tiny", "Why?"]])
def test_without_torch_it_is_a_sentence(runs, tmp_path, command):
    done = subprocess.run(
        [sys.executable, "-c", ABSENT, *command, "--store", str(runs)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "which is not installed. Run: pip install 'bridgekd[local]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == []
