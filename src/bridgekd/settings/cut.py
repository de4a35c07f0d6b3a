"""The recipe cut into the settings of its stages."""

from pathlib import Path
from typing import Literal

from bridgekd.config import Assistant, Recipe, Student, Teacher
from bridgekd.core.draws import SEED_STEP
from bridgekd.grading.answer_type import load_answer_type
from bridgekd.grading.graders import GRADERS
from bridgekd.selection.difficulty import MEASURES
from bridgekd.selection.strategies import STRATEGIES
from bridgekd.settings.sections import (
    WHOLE,
    Annotate,
    Ask,
    Check,
    EmbedPool,
    Instruct,
    LoadPool,
    LoadTest,
    MeasureTeacher,
    Part,
    QueryTeacher,
    SampleRationales,
    ScorePool,
    Select,
    Signals,
    TrainModel,
    TrainOnAnswers,
    TrainWithMentor,
    WarmUp,
)
from bridgekd.settings.variant_checks import check_measure, check_strategy
from bridgekd.teacher.transports import resolve_teacher
from bridgekd.variants import VariantRef, VariantSettings


class Settings:
    """The settings of every stage of one recipe."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        """Files that the recipe names are relative to `folder`."""
        self.recipe = recipe
        r, a, s, seed = recipe, recipe.assistant, recipe.student, recipe.seed
        self.ask = _ask(r.teacher)
        self.answer_type = load_answer_type(GRADERS.resolve(r.data.answer_type, folder))
        self.load_pool = LoadPool(
            fields=r.data.fields,
            answer_type=self.answer_type.settings,
            unlabelled=r.data.unlabelled,
            validation=r.data.validation,
            seed=seed,
        )
        self.load_test = LoadTest(fields=r.data.fields)
        self.warm_up = WarmUp(
            share=a.warm_up,
            train=a.warm_up_train,
            lora=a.lora,
            max_new_tokens=a.max_new_tokens,
            seed=seed,
        )
        measure = MEASURES.resolve(r.select.difficulty, folder)
        check_measure(r, MEASURES.load(measure), self.answer_type)
        self.score_pool = _score_pool(a, measure, seed)
        self.embed_pool = EmbedPool()
        self.n_committee = _count_committee(measure)
        self.select = Select(
            strategy=STRATEGIES.resolve(r.select.strategy, folder),
            queries=r.budget.queries,
            part=WHOLE,
            centre=r.select.space != "raw",
            seed=seed,
        )
        self.query_teacher = QueryTeacher(
            ask=self.ask, budget=r.budget, part=WHOLE, accept=_counted(r)
        )
        self.check = _check(r, r.check.keep)
        self.signals = _signals(r)
        self.rounds = tuple((k / n, (k + 1) / n) for n in (r.select.rounds,) for k in range(n))
        self.train_assistant = _training(a, "joint", seed)
        self.annotate = _annotate(r)
        self.instruct_student = Instruct(train=s.instruct_train, lora=s.lora, seed=seed)
        self.train_student = _training(s, s.form, seed)
        self.train_on_answers = _on_answers(s, seed)
        self.sample_rationales = SampleRationales(
            backend=a.backend,
            samples=r.mentor.samples,
            max_new_tokens=a.max_new_tokens,
            seed=seed,
        )
        self.train_with_mentor = TrainWithMentor(
            **dict(self.train_student), share=r.mentor.share, temperature=r.mentor.temperature
        )
        self.measure_teacher = MeasureTeacher(
            ask=self.ask, queries=r.evaluate.teacher_queries, seed=seed
        )

    def warm_up_of(self, member: int) -> WarmUp:
        """The warm-up of one member of the committee, with questions and a shuffling of its own;
        member 0 is the assistant that is trained on.
        """
        return self.warm_up.model_copy(update={"seed": self.warm_up.seed + SEED_STEP * member})

    def query_part(self, part: Part) -> QueryTeacher:
        """The buying of a part of the budget."""
        return self.query_teacher.model_copy(update={"part": part})

    def whole_pool(self) -> tuple[Select, QueryTeacher]:
        """Random choice and buying without a limit on queries; the budget's other limits stay."""
        budget = self.recipe.budget.model_copy(update={"queries": "100%"})
        chosen = self.select_by("random").model_copy(update={"queries": "100%"})
        return chosen, self.query_teacher.model_copy(update={"budget": budget})

    def check_by(self, keep: Literal["correct", "confident", "all"]) -> Check:
        """The check by another rule."""
        return _check(self.recipe, keep)

    def select_by(self, strategy: str | None, part: Part = WHOLE) -> Select:
        """The selection with another strategy; None keeps the recipe's.

        What a strategy does not use stands at a constant, so that changing it redoes nothing.
        """
        chosen = self.select.strategy
        if strategy is not None:
            chosen = STRATEGIES.resolve(VariantRef(name=strategy))
        variant = STRATEGIES.load(chosen)
        check_strategy(self.recipe, variant)
        unused: dict[str, object] = {} if variant.needs_embeddings else {"centre": True}
        unused |= {} if variant.uses_seed else {"seed": 0}
        return self.select.model_copy(update={"strategy": chosen, "part": part, **unused})


def _check(recipe: Recipe, keep: Literal["correct", "confident", "all"]) -> Check:
    asked = keep == "confident"
    return Check(
        keep=keep,
        confidence=recipe.confidence if asked else None,
        scoring=recipe.assistant.scoring if asked else "transformers",
    )


def _signals(recipe: Recipe) -> Signals:
    return Signals(
        samples=recipe.loop.samples,
        max_new_tokens=recipe.student.max_new_tokens,
        confidence=recipe.confidence,
        seed=recipe.seed,
        scoring=recipe.assistant.scoring,
    )


def _training(
    sized: Assistant | Student, form: Literal["joint", "two_task"], seed: int
) -> TrainModel:
    return TrainModel(
        train=sized.train,
        form=form,
        answer_weight=sized.answer_weight,
        lora=sized.lora,
        max_new_tokens=sized.max_new_tokens,
        seed=seed,
    )


def _on_answers(student: Student, seed: int) -> TrainOnAnswers:
    """As `_training`, but for what only rationales have."""
    alike = {k: v for k, v in _training(student, "joint", seed) if k in TrainOnAnswers.model_fields}
    return TrainOnAnswers(**alike)


def _score_pool(assistant: Assistant, settings: VariantSettings, seed: int) -> ScorePool:
    """What the measure does not use stands at a constant."""
    measure = MEASURES.load(settings)
    return ScorePool(
        difficulty=settings,
        max_new_tokens=0 if measure.needs_gold else assistant.max_new_tokens,
        seed=seed if measure.samples_answers else 0,
        scoring=assistant.scoring,
    )


def _count_committee(settings: VariantSettings) -> int:
    """Return how many assistants score the pool."""
    measure = MEASURES.load(settings)
    return measure.count_answers(MEASURES.parse_options(settings)) if measure.needs_committee else 1


def _annotate(recipe: Recipe) -> Annotate:
    keep, assistant = recipe.annotate.keep, recipe.assistant
    return Annotate(
        keep=keep,
        confidence=recipe.confidence if keep == "confident" else None,
        samples=recipe.annotate.samples if keep == "consistent" else 0,
        max_new_tokens=assistant.max_new_tokens,
        seed=recipe.seed if keep == "consistent" else 0,
        backend=assistant.backend,
        scoring=assistant.scoring if keep == "confident" else "transformers",
    )


def _counted(recipe: Recipe) -> Literal["correct", "all"] | None:
    """What counts as accepted; None where the budget does not limit that."""
    if recipe.budget.accepted is None or recipe.check.keep == "confident":
        return None
    return recipe.check.keep


def _ask(teacher: Teacher) -> Ask:
    return Ask(
        provider=teacher.provider,
        model=teacher.model,
        fields=teacher.settings(0),
        prompt=teacher.prompt,
        price=resolve_teacher(teacher).price,
    )
