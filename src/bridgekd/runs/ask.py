"""One question to the models of a run: the student, its assistant and its base model."""

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
from bridgekd.stages.arm_results import ArmSettings
from bridgekd.stages.model_backend import load_artifact_model
from bridgekd.stages.predict import build_predict_settings
from bridgekd.stages.run_context import RunContext
from bridgekd.stages.token_limit import resolve_token_limit

MIN_CHOICES, MAX_CHOICES = 2, 26


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """The answer of one model to a question."""

    model: str
    rationale: str
    answer: str


@dataclass(frozen=True, slots=True)
class LoadedModels:
    """Models of a run that are loaded and ready for questions."""

    answer_type: AnswerType
    models: tuple[tuple[EvaluatedModel, "lm.LocalModel"], ...]

    def ask(self, question: str, choices: Sequence[str] = ()) -> list[ModelAnswer]:
        """Return the answer of each model, prompted as it was trained.

        Raises InputError for an empty question, and for choices that do not fit the task.
        """
        example = _build_example(question, choices, self.answer_type)
        return [_ask_model(arm, local, example, self.answer_type) for arm, local in self.models]


def open_models(
    run: FinishedRun, arm: str | None, ctx: RunContext, progress: Progress = ignore_progress
) -> LoadedModels:
    """Load an arm (None: the student of the run's method), its assistants and its base model.

    Raises InputError for an arm that was not trained on rationales, and for a missing model.
    """
    models = _find_models(run, run.get_arm(arm))
    loaded = []
    for n_done, model in enumerate(models):
        progress("load models", n_done, len(models))
        loaded.append((model, load_artifact_model(model.model, ctx)))
    progress("load models", len(models), len(models))
    answer_type = load_answer_type(GRADERS.resolve(run.recipe.data.answer_type, run.folder))
    return LoadedModels(answer_type, tuple(loaded))


def _find_models(run: FinishedRun, selected: EvaluatedModel) -> list[EvaluatedModel]:
    """Return the selected model, the assistants among its ancestors, and its base model."""
    ancestors, role = find_ancestors(selected.model), selected.predicted.role
    assistants = [
        model
        for model in run.arms.values()
        if model.arm.role == "assistant"
        and model.trained_on_rationales
        and model.model.path.name in ancestors
        and model != selected
    ]
    options = run.recipe.assistant if role == "assistant" else run.recipe.student
    model = resolve_model(options.model, run.folder, options.revision)
    base = EvaluatedModel(
        name=f"{role}_base",
        arm=ArmSettings(name=f"{role}_base", title=f"{role.capitalize()}, base model", role=role),
        model=model,
        predicted=build_predict_settings(run.recipe, role, "cot"),
        max_new_tokens=resolve_token_limit(options.max_new_tokens, model),
    )
    return [selected, *assistants, base]


def _build_example(question: str, choices: Sequence[str], answer_type: AnswerType) -> Example:
    if not question.strip():
        raise InputError("The question is empty. Write a question.")
    if answer_type.has_choices and not choices:
        raise InputError(
            "This task has multiple-choice questions. Pass every choice with --choices."
        )
    if choices and not MIN_CHOICES <= len(choices) <= MAX_CHOICES:
        raise InputError(
            f"The question has {len(choices)} choices. Pass {MIN_CHOICES} to {MAX_CHOICES} of them."
        )
    return Example("question", question.strip(), choices=tuple(c.strip() for c in choices))


def _ask_model(
    model: EvaluatedModel, local: "lm.LocalModel", example: Example, answer_type: AnswerType
) -> ModelAnswer:
    """Return an answer. A multi-task student explains and answers in two prompts."""
    prompts = [render_cot_prompt(example)]
    if model.predicted.prompt_mode == "answer_only":
        prompts.append(render_answer_prompt(example))
    texts = lm.generate_texts(
        local, prompts, max_new_tokens=model.max_new_tokens, batch_size=len(prompts)
    )
    rationale, _ = split_answer(texts[0])
    _, answer = split_answer(texts[-1])
    answer = answer or answer_type.extract_answer(texts[-1], example.choices)
    return ModelAnswer(model.arm.title, rationale, answer)
