"""One question to the models of a run: the student, its assistant and the untouched student."""

from collections.abc import Sequence
from dataclasses import dataclass

from bridgekd import lm
from bridgekd.errors import InputError
from bridgekd.grading.answer_extraction import split_answer
from bridgekd.grading.answer_type import AnswerType, load_answer_type
from bridgekd.grading.graders import GRADERS
from bridgekd.io.artifact_store import find_ancestors
from bridgekd.io.sources import resolve_model
from bridgekd.progress import Progress, ignore_progress
from bridgekd.prompts import render_answer_prompt, render_cot_prompt
from bridgekd.records import Example
from bridgekd.runs.metadata import EvaluatedModel, FinishedRun
from bridgekd.stages.evaluate import ArmSettings
from bridgekd.stages.model_backend import load_artifact_model
from bridgekd.stages.predict import build_predict_settings
from bridgekd.stages.run_context import RunContext

CHOICE_RANGE = (2, 26)


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """What one model made of a question."""

    model: str
    rationale: str
    answer: str


@dataclass(frozen=True, slots=True)
class LoadedModels:
    """Models of a run that are loaded and wait for questions."""

    answer_type: AnswerType
    models: tuple[tuple[EvaluatedModel, "lm.LocalModel"], ...]

    def ask(self, question: str, choices: Sequence[str] = ()) -> list[ModelAnswer]:
        """What each model answers, asked as it was trained. InputError for options that a question
        of this task cannot have.
        """
        example = _example(question, choices, self.answer_type)
        return [_ask_model(arm, local, example, self.answer_type) for arm, local in self.models]


def open_models(
    run: FinishedRun, arm: str | None, live: RunContext, progress: Progress = ignore_progress
) -> LoadedModels:
    """The arm (None: the student of the run's method), its assistant and its untouched base.

    Raises InputError for an arm that learnt from no rationales, and for models that are gone.
    """
    wanted = _find_models(run, run.get_arm(arm))
    models = []
    for n_done, one in enumerate(wanted):
        progress("load models", n_done, len(wanted))
        models.append((one, load_artifact_model(one.model, live)))
    progress("load models", len(wanted), len(wanted))
    answer_type = load_answer_type(GRADERS.resolve(run.recipe.data.answer_type, run.folder))
    return LoadedModels(answer_type, tuple(models))


def _find_models(run: FinishedRun, chosen: EvaluatedModel) -> list[EvaluatedModel]:
    """The chosen model, the assistants that it was made from, and its base model."""
    made_from, role = find_ancestors(chosen.model), chosen.predicted.role
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
        model=resolve_model(options.model, run.folder, options.revision),
        predicted=build_predict_settings(run.recipe, role, "cot"),
    )
    return [chosen, *(other for other in others if other != chosen), base]


def _example(question: str, choices: Sequence[str], answer_type: AnswerType) -> Example:
    if not question.strip():
        raise InputError("the question is empty; write one")
    if answer_type.has_choices and not choices:
        raise InputError(
            "questions of this task have options, and a model was taught to pick one; give each "
            "with --choices"
        )
    low, high = CHOICE_RANGE
    if choices and not low <= len(choices) <= high:
        raise InputError(f"{len(choices)} options given; a question has {low} to {high}, or none")
    return Example("asked", question.strip(), choices=tuple(c.strip() for c in choices))


def _ask_model(
    model: EvaluatedModel, local: "lm.LocalModel", example: Example, answer_type: AnswerType
) -> ModelAnswer:
    """Where explaining and answering were taught as two tasks, both are asked."""
    prompts = [render_cot_prompt(example)]
    prompts += [render_answer_prompt(example)] * (model.predicted.prompt_mode == "answer_only")
    written = lm.generate_texts(
        local, prompts, max_new_tokens=model.predicted.max_new_tokens, batch_size=len(prompts)
    )
    rationale, answer = split_answer(written[0])
    if len(written) > 1:
        answer = split_answer(written[1])[1]
    answer = answer or answer_type.extract_answer(written[-1], example.choices)
    return ModelAnswer(model.arm.title, rationale, answer)
