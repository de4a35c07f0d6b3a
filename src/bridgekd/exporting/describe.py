"""What the cards of one arm tell, gathered from the run's manifests and figures."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from bridgekd import lm
from bridgekd.config import Budget, Recipe
from bridgekd.core.prompts import answer_prompt, explain_prompt
from bridgekd.edges.licences import licence_of
from bridgekd.edges.metrics_file import read_metrics
from bridgekd.edges.sources import model_and_revision
from bridgekd.edges.store import Artifact, ancestors
from bridgekd.journal import Finished, Measured, rationales_of
from bridgekd.records import Example, Lesson
from bridgekd.report.cards import Card, Figure
from bridgekd.stages.lessons import read_rationales
from bridgekd.stages.naming import title
from bridgekd.stages.overlapping import contamination
from bridgekd.stages.spending import purchases_of
from bridgekd.stats.metrics import ArmMetrics, GroupAccuracy

HOW = {
    "bridge": "Method: BRIDGE (arXiv 2512.20403). A local assistant learnt from the teacher's "
    "answers to questions chosen by difficulty and diversity; the student learnt from the "
    "rationales that the assistant then wrote for the whole pool.",
    "random": "Method: BRIDGE (arXiv 2512.20403) with random choice. A local assistant learnt from "
    "the teacher's answers to questions drawn at random; the student learnt from the rationales "
    "that the assistant then wrote for the whole pool.",
    "direct": "Method: direct distillation (arXiv 2305.02301). The student learnt from the "
    "teacher's own rationales for questions drawn at random.",
    "direct_full": "Method: direct distillation (arXiv 2305.02301) with the whole pool asked. The "
    "student learnt from the teacher's own rationales.",
    "hardest": "Method: BRIDGE (arXiv 2512.20403) with choice by difficulty alone. A local "
    "assistant learnt from the teacher's answers; the student learnt from the rationales that the "
    "assistant then wrote for the whole pool.",
    "diverse": "Method: BRIDGE (arXiv 2512.20403) with choice by diversity alone. A local "
    "assistant learnt from the teacher's answers; the student learnt from the rationales that the "
    "assistant then wrote for the whole pool.",
    "no_instruct": "Method: BRIDGE (arXiv 2512.20403) without instruction tuning. A local "
    "assistant learnt from the teacher's answers; the student learnt from the rationales that the "
    "assistant then wrote for the whole pool.",
    "mentor_kd": "Method: Mentor-KD (arXiv 2410.09037). A local assistant learnt from the "
    "teacher's answers to questions drawn at random; the student learnt from those of its sampled "
    "rationales that end in the right answer, and from its distribution.",
    "ta_in_the_loop": "Method: Teaching-Assistant-in-the-Loop (arXiv 2406.05322). The student "
    "learnt from the teacher's own rationales: first for questions drawn at random, then for those "
    "that it was least sure of.",
}
_ASSISTANT = "The assistant of the method: it learnt from the teacher's own rationales."
_SHOWN = ("student_base", "assistant_base", "teacher")  # beside the model, where measured
_OPTIONS = ("first option", "second option")


def card_of(run: Finished, arm: Measured, lessons: Sequence[Lesson], merged: "lm.Merged") -> Card:
    """Everything the two cards of `arm` say."""
    recipe, made = run.recipe, ancestors(arm.model)
    metrics = read_metrics(run.evaluation.path).arms
    own, settings, facts = metrics[arm.name], arm.model.manifest["settings"], arm.model.facts
    base, pool = _base(run, arm), arm.model.inputs[0].facts
    return Card(
        run=run.name,
        arm=arm.name,
        title=title(arm.name),
        how=HOW.get(arm.name.partition("@")[0], _ASSISTANT),
        base=model_and_revision(base)[0] if base.stage == "hub" else base.path.name,
        base_on_hub=base.stage == "hub",
        licence=licence_of(base),
        train_data=_named(_input(run.behind, "load_pool", 0)),
        test_data=_named(_input(run.behind, "load_test", 1)),
        n_pool=pool["n_pool"],
        n_validation=pool["n_validation"],
        contamination=contamination(run.behind),
        teacher=recipe.teacher.model,
        provider=recipe.teacher.provider,
        budget=_in_words(_budget(recipe.budget, arm)),
        n_queries=own.n_queries,
        spend_usd=own.spend_usd,
        purchases=tuple(purchases_of(made)),
        figures=_figures(arm, metrics),
        by_domain=tuple(_figure(d, row) for d, row in own.by_domain.items() if d),
        n_rows=len(lessons),
        n_questions=len({lesson.id for lesson in lessons}),
        n_too_long=facts["n_too_long"],
        sources=dict(sorted(Counter(lesson.source for lesson in lessons).items())),
        dropped=_dropped(arm.model),
        rules=tuple(sorted({a.manifest["settings"]["keep"] for a in rationales_of(arm.model)})),
        two_task=settings["form"] == "two_task",
        n_updates=facts["n_updates"],
        best_update=facts["best_update"],
        dtype=merged.dtype,
        n_parameters=merged.n_parameters,
        max_new_tokens=arm.max_new_tokens,
        prompt_end=_prompt_end(arm, recipe),
        notes=merged.notes,
        libraries=_libraries(arm.model),
    )


def _base(run: Finished, arm: Measured) -> Artifact:
    """The model that the arm was at first, where the recipe says that it is."""
    first = run.source(arm.model)
    if first.stage == "hub":
        return Artifact("hub", first.fingerprint, Path(_named(first)))
    sized = run.recipe.assistant if arm.model.stage == "train_assistant" else run.recipe.student
    return Artifact("model", first.fingerprint, run.folder / Path(sized.model).expanduser())


def _named(source: Artifact) -> str:
    """What a person brought: a Hub id, or the name alone of a file or folder."""
    is_on_hub = source.stage == "hub"
    return source.fingerprint.removeprefix("hub:") if is_on_hub else source.path.name


def _input(behind: Mapping[str, Artifact], stage: str, place: int) -> Artifact:
    """An input of a stage; what several seeds brought there is the same."""
    return next(a for a in behind.values() if a.stage == stage).inputs[place]


def _budget(budget: Budget, arm: Measured) -> Budget:
    """That of the arm's own purchases, the recipe's where it made none."""
    bought = [a for a in ancestors(arm.model).values() if a.stage == "query_teacher"]
    return Budget.model_validate(bought[0].manifest["settings"]["budget"]) if bought else budget


def _in_words(budget: Budget) -> str:
    queries = budget.queries
    of = f"{queries} of the pool's questions" if isinstance(queries, str) else f"{queries} queries"
    parts = [of] if queries is not None else []
    parts += [f"${budget.usd:,.2f}"] if budget.usd is not None else []
    parts += [f"{budget.tokens:,} tokens"] if budget.tokens is not None else []
    parts += [f"{budget.accepted:,} accepted answers"] if budget.accepted is not None else []
    return f"{', '.join(parts)}; whichever was reached first" if len(parts) > 1 else parts[0]


def _figures(arm: Measured, metrics: Mapping[str, ArmMetrics]) -> tuple[Figure, ...]:
    names = [arm.name, *(name for name in _SHOWN if name in metrics)]
    return tuple(_figure(title(name), metrics[name]) for name in names)


def _figure(title: str, row: ArmMetrics | GroupAccuracy) -> Figure:
    return Figure(title, row.accuracy, *row.ci95, row.n_test)


def _dropped(model: Artifact) -> dict[str, int]:
    rows = read_rationales(rationales_of(model))
    reasons = Counter(r.reason.partition(":")[0] for r in rows if not r.kept)
    return dict(reasons.most_common())


def _prompt_end(arm: Measured, recipe: Recipe) -> str:
    """What stands behind the question in a prompt of the training."""
    options = _OPTIONS if recipe.data.answer_kind == "choice" else ()
    asked = answer_prompt if arm.ask == "answer" else explain_prompt
    (message,) = asked(Example("", "", choices=options))
    return message.content


def _libraries(model: Artifact) -> str:
    known = model.manifest["libraries"]
    return ", ".join(f"{name} {known[name]}" for name in ("bridgekd", "transformers", "torch"))
