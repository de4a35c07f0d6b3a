"""Questions to the models of a run: each model is prompted as it was trained."""

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
from bridgekd.stages.arm_results import ArmSettings
from bridgekd.stages.predict import PredictSettings
from tiny_models import write_tiny

QUESTION = Example("a", "Who holds the box ?")


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    return lm.load_model(write_tiny(tmp_path_factory.mktemp("m")), device="cpu")


@pytest.fixture
def load_pair(local, tmp_path):
    """Load one model that explains, and the same model that only answers."""

    def load(name="text"):
        model = Artifact("train_student", "1", tmp_path)
        arm = ArmSettings(name="bridge", title="Student, BRIDGE")
        models = (
            EvaluatedModel(
                "bridge",
                arm,
                model,
                PredictSettings(role="student", prompt_mode=prompt_mode, max_new_tokens=6),
                6,
            )
            for prompt_mode in ("cot", "answer_only")
        )
        return LoadedModels(get_type(name), tuple((model, local) for model in models))

    return load


def generate(local, prompt):
    return lm.generate_texts(local, [prompt], max_new_tokens=6, batch_size=1)[0]


def test_each_model_is_prompted_as_it_was_trained(local, load_pair):
    joint, multi_task = load_pair().ask(QUESTION.question)
    assert joint.rationale == multi_task.rationale == generate(local, render_cot_prompt(QUESTION))
    assert joint.model == "Student, BRIDGE"
    assert generate(local, render_cot_prompt(QUESTION)) != generate(
        local, render_answer_prompt(QUESTION)
    )


@pytest.mark.parametrize(
    ("name", "question", "choices", "complaint"),
    [
        ("multiple_choice", "Which?", [], "This task has multiple-choice questions"),
        ("multiple_choice", "Which?", ["one"], "The question has 1 choices. Pass 2 to 26 of them"),
        ("text", "  ", [], "The question is empty"),
    ],
)
def test_unsuitable_question_is_refused(load_pair, name, question, choices, complaint):
    with pytest.raises(InputError, match=complaint):
        load_pair(name).ask(question, choices)


def test_choices_are_shown_as_in_training(local, load_pair):
    example = Example("a", "Which ?", choices=("red box", "lazy dog"))
    (reply, _) = load_pair("multiple_choice").ask("Which ?", ["red box", " lazy dog "])
    assert reply.rationale == generate(local, render_cot_prompt(example))


def test_student_answers_with_its_assistant_and_its_base(runs, capsys):
    loaded = bridgekd.load_models("tiny", store=runs)
    assert [arm.name for arm, _ in loaded.models] == ["bridge", "assistant", "student_base"]
    replies = loaded.ask("Where is Ann?")
    assert main(["ask", "tiny", "Where is Ann?", "--store", str(runs)]) == 0
    shown = capsys.readouterr().out
    assert all(reply.model in shown and reply.rationale[:9] in shown for reply in replies)


def test_questions_are_read_from_stdin_without_an_argument(runs, monkeypatch, capsys):
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
def test_missing_torch_is_one_sentence(runs, tmp_path, command):
    done = subprocess.run(
        [sys.executable, "-c", ABSENT, *command, "--store", str(runs)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "which is not installed. Run: pip install 'bridgekd[local]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == []
