"""One question to the models of a run: the student, its assistant and the untouched student."""

from collections.abc import Sequence
from dataclasses import dataclass

from bridgekd import lm
from bridgekd.core.grading import read_answer, split_answer
from bridgekd.core.prompts import answer_prompt, explain_prompt
from bridgekd.edges.sources import model_source
from bridgekd.edges.store import ancestors
from bridgekd.errors import BadInput
from bridgekd.journal import Finished, Measured
from bridgekd.progress import Progress, silent
from bridgekd.records import Example
from bridgekd.report.titles import get_title
from bridgekd.stages.live import Live
from bridgekd.stages.pool import open_model

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

    kind: str  # of the task's answers
    models: tuple[tuple[Measured, "lm.LocalModel"], ...]

    def ask(self, question: str, choices: Sequence[str] = ()) -> list[Reply]:
        """What each model answers, asked as it was trained. BadInput for options that a question
        of this task cannot have.
        """
        example = _example(question, choices, self.kind)
        return [_reply(arm, local, example, self.kind) for arm, local in self.models]


def panel(run: Finished, arm: str | None, live: Live, progress: Progress = silent) -> Panel:
    """The arm (None: the student of the run's method), its assistant and its untouched base.

    Raises BadInput for an arm that learnt from no rationales, and for models that are gone.
    """
    wanted = _wanted(run, run.arm(arm))
    models = []
    for n_done, one in enumerate(wanted):
        progress("load models", n_done, len(wanted))
        models.append((one, open_model(one.model, live)))
    progress("load models", len(wanted), len(wanted))
    return Panel(run.recipe.data.answer_kind, tuple(models))


def _wanted(run: Finished, arm: Measured) -> list[Measured]:
    behind = ancestors(arm.model)
    assistants = [
        other
        for other in run.arms.values()
        if other.model.stage == "train_assistant" and other.model.path.name in behind
    ]
    recipe = run.recipe
    is_assistant = arm.model.stage == "train_assistant"
    sized = recipe.assistant if is_assistant else recipe.student
    base = Measured(
        "assistant_base" if is_assistant else "student_base",
        model_source(sized.model, run.folder, sized.revision),
        "explain",
        sized.max_new_tokens,
    )
    return [arm, *(a for a in assistants if a != arm), base]


def _example(question: str, choices: Sequence[str], kind: str) -> Example:
    if not question.strip():
        raise BadInput("the question is empty; write one")
    if kind == "choice" and not choices:
        raise BadInput(
            "questions of this task have options, and a model was taught to pick one; give each "
            "with --choices"
        )
    low, high = N_OPTIONS
    if choices and not low <= len(choices) <= high:
        raise BadInput(f"{len(choices)} options given; a question has {low} to {high}, or none")
    return Example("asked", question.strip(), choices=tuple(c.strip() for c in choices))


def _reply(arm: Measured, local: "lm.LocalModel", example: Example, kind: str) -> Reply:
    """Where explaining and answering were taught as two tasks, both are asked."""
    prompts = [explain_prompt(example)]
    prompts += [answer_prompt(example)] * (arm.ask == "answer")
    written = lm.generate(
        local, prompts, max_new_tokens=arm.max_new_tokens, batch_size=len(prompts)
    )
    rationale, answer = split_answer(written[0])
    if len(written) > 1:
        answer = split_answer(written[1])[1]
    answer = answer or read_answer(written[-1], kind, example.choices)
    return Reply(get_title(arm.name), rationale, answer)
