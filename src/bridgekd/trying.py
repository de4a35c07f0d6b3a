"""One question to the models of a run: the student, its assistant and the untouched student."""

from collections.abc import Sequence
from dataclasses import dataclass

from bridgekd import lm
from bridgekd.core.prompts import answer_prompt, explain_prompt
from bridgekd.edges.sources import model_source
from bridgekd.edges.store import ancestors
from bridgekd.errors import BadInput
from bridgekd.grading.answer_extraction import split_answer
from bridgekd.grading.answer_type import AnswerType, load_answer_type
from bridgekd.grading.graders import GRADERS
from bridgekd.journal import EvaluatedModel, FinishedRun
from bridgekd.progress import Progress, silent
from bridgekd.records import Example
from bridgekd.stages.evaluate import ArmSettings
from bridgekd.stages.live import Live
from bridgekd.stages.model_backend import load_artifact_model
from bridgekd.stages.predict import build_predict_settings

N_OPTIONS = (2, 26)


@dataclass(frozen=True, slots=True)
class Reply:
    """What one model made of a question."""

    model: str
    rationale: str
    answer: str


@dataclass(frozen=True, slots=True)
class Panel:
    """Models of a run that are loaded and wait for questions."""

    answer_type: AnswerType
    models: tuple[tuple[EvaluatedModel, "lm.LocalModel"], ...]

    def ask(self, question: str, choices: Sequence[str] = ()) -> list[Reply]:
        """What each model answers, asked as it was trained. BadInput for options that a question
        of this task cannot have.
        """
        example = _example(question, choices, self.answer_type)
        return [_reply(arm, local, example, self.answer_type) for arm, local in self.models]


def panel(run: FinishedRun, arm: str | None, live: Live, progress: Progress = silent) -> Panel:
    """The arm (None: the student of the run's method), its assistant and its untouched base.

    Raises BadInput for an arm that learnt from no rationales, and for models that are gone.
    """
    wanted = _wanted(run, run.get_arm(arm))
    models = []
    for n_done, one in enumerate(wanted):
        progress("load models", n_done, len(wanted))
        models.append((one, load_artifact_model(one.model, live)))
    progress("load models", len(wanted), len(wanted))
    answer_type = load_answer_type(GRADERS.resolve(run.recipe.data.answer_type, run.folder))
    return Panel(answer_type, tuple(models))


def _wanted(run: FinishedRun, chosen: EvaluatedModel) -> list[EvaluatedModel]:
    """The chosen model, the assistants that it was made from, and its base model."""
    made_from, role = ancestors(chosen.model), chosen.predicted.role
    others = [
        other
        for other in run.arms.values()
        if other.arm.role == "assistant"
        and other.trained_on_rationales
        and other.model.path.name in made_from
    ]
    options = run.recipe.assistant if role == "assistant" else run.recipe.student
    base = EvaluatedModel(
        name=f"{role}_base",
        arm=ArmSettings(name=f"{role}_base", title=f"{role.capitalize()}, base model", role=role),
        model=model_source(options.model, run.folder, options.revision),
        predicted=build_predict_settings(run.recipe, role, "explain"),
    )
    return [chosen, *(other for other in others if other != chosen), base]


def _example(question: str, choices: Sequence[str], answer_type: AnswerType) -> Example:
    if not question.strip():
        raise BadInput("the question is empty; write one")
    if answer_type.has_choices and not choices:
        raise BadInput(
            "questions of this task have options, and a model was taught to pick one; give each "
            "with --choices"
        )
    low, high = N_OPTIONS
    if choices and not low <= len(choices) <= high:
        raise BadInput(f"{len(choices)} options given; a question has {low} to {high}, or none")
    return Example("asked", question.strip(), choices=tuple(c.strip() for c in choices))


def _reply(
    model: EvaluatedModel, local: "lm.LocalModel", example: Example, answer_type: AnswerType
) -> Reply:
    """Where explaining and answering were taught as two tasks, both are asked."""
    prompts = [explain_prompt(example)]
    prompts += [answer_prompt(example)] * (model.predicted.ask == "answer")
    written = lm.generate(
        local, prompts, max_new_tokens=model.predicted.max_new_tokens, batch_size=len(prompts)
    )
    rationale, answer = split_answer(written[0])
    if len(written) > 1:
        answer = split_answer(written[1])[1]
    answer = answer or answer_type.extract_answer(written[-1], example.choices)
    return Reply(model.arm.title, rationale, answer)
