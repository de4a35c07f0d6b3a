"""A run: one recipe and one store, with everything that a method needs.

A method calls the functions of `Run`. Each makes one artifact with the settings of the recipe. For
other settings and stages a method calls `run.make(stage, settings, ...)`.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, ParamSpec, TypeVar

from pydantic import BaseModel, JsonValue

from bridgekd.cost.budget_slice import FULL_BUDGET, BudgetSlice
from bridgekd.errors import InputError
from bridgekd.io.artifact_store import Artifact, PlanStore, Stage, Store
from bridgekd.io.disk import translate_disk_errors, write_atomic
from bridgekd.io.sources import resolve_data, resolve_model
from bridgekd.paths import resolve_path
from bridgekd.recipe import CountOrPercent, FrozenModel, Recipe, Role
from bridgekd.report.stage import build_report_settings, report
from bridgekd.runs import evidence
from bridgekd.stages.annotate import (
    annotate,
    build_annotate_settings,
    build_sample_settings,
    sample_rationales,
)
from bridgekd.stages.arm_results import ArmSettings
from bridgekd.stages.check_rationales import CheckRule, build_check_settings, check_rationales
from bridgekd.stages.early_stopping import PromptMode
from bridgekd.stages.load_data import (
    LoadTestSettings,
    build_load_pool_settings,
    load_pool,
    load_test,
)
from bridgekd.stages.predict import build_predict_settings, predict
from bridgekd.stages.query_teacher import (
    build_evaluate_teacher_settings,
    build_query_settings,
    evaluate_teacher,
    query_teacher,
)
from bridgekd.stages.run_context import RunContext
from bridgekd.stages.score_pool import EmbedPoolSettings, embed_pool
from bridgekd.stages.select_questions import build_select_settings, select_questions
from bridgekd.stages.train import (
    TrainSettings,
    build_assistant_settings,
    build_instruct_settings,
    build_student_settings,
    build_warm_up_settings,
    instruct_student,
    train_assistant,
    train_student,
    warm_up,
)
from bridgekd.variants import VariantRef, VariantSettings

P = ParamSpec("P")
S = TypeVar("S", bound=BaseModel)
RunState = Literal["running", "done", "stopped", "interrupted"]


@dataclass(frozen=True, slots=True)
class Arm:
    """A model of a comparison. It is prompted as it was trained (`prompt_mode`).

    is_result: whether it is the final model of its method. step: sorts the other arms; 0 is a base
    model, 1 a model before its training on the task, 2 a model after it. card_sentence: describes
    in an exported model's card how the model was made.
    """

    name: str
    title: str
    model: Artifact
    role: Role
    prompt_mode: PromptMode = "cot"
    is_result: bool = False
    step: int = 2
    card_sentence: str = ""

    @property
    def settings(self) -> ArmSettings:
        """The part of the arm that metrics, reports and cards show."""
        return ArmSettings.model_validate({k: getattr(self, k) for k in ArmSettings.model_fields})


class StageFolder(FrozenModel):
    """A stage of a run and its folder in the store."""

    stage: str
    folder: str


class RunMetadata(FrozenModel):
    """runs/<name>.json. `recipe` is a dump, which can be shown even if it is of another version."""

    name: str
    ledger: str
    folder: str  # of the recipe
    recipe: dict[str, JsonValue]
    methods: tuple[VariantRef, ...]
    n_seeds: int = 1
    budgets: tuple[int | str, ...] = ()
    state: RunState = "running"
    stages: tuple[StageFolder, ...] = ()


class Run:
    """A recipe, its store and its sources. Paths in the recipe are relative to `folder`."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        store: Store | PlanStore,
        ctx: RunContext,
        metadata: RunMetadata | None = None,
    ) -> None:
        """Without `metadata` the run writes no runs/<name>.json."""
        self.recipe = recipe
        self.folder = folder
        self.ctx = ctx
        self.store = store
        self.metadata = metadata
        self.stage_folders: dict[StageFolder, None] = {}
        with _name_key("data.train"):
            self.train_data = resolve_data(recipe.data.train, folder)
        with _name_key("data.test"):
            self.test_data = resolve_data(recipe.data.test, folder)
        with _name_key("assistant.model"):
            model, revision = recipe.assistant.model, recipe.assistant.revision
            self.assistant = resolve_model(model, folder, revision)
        with _name_key("student.model"):
            self.student = resolve_model(recipe.student.model, folder, recipe.student.revision)
        encoder = recipe.select.embedding_model
        with _name_key("select.embedding_model"):
            self.encoder = None if encoder is None else resolve_model(encoder, folder, None)
        instruct, few_shot = recipe.student.instruction_data, recipe.teacher.prompt.few_shot
        with _name_key("student.instruction_data"):
            self.instructions = resolve_data(instruct, folder) if instruct else None
        with _name_key("teacher.prompt.few_shot"):
            self.few_shot = (resolve_data(few_shot, folder),) if few_shot else ()

    def with_recipe(self, recipe: Recipe) -> "Run":
        """Return this run with another seed or budget, but the same sources, store and file."""
        variant = copy.copy(self)
        variant.recipe = recipe
        return variant

    def make(self, stage: Stage[S, P], settings: S, *args: P.args, **kwargs: P.kwargs) -> Artifact:
        """Return the artifact of this stage, and record its folder in the run's file."""
        artifact = self.store.make(stage, settings, self.ctx, *args, **kwargs)
        self.stage_folders[StageFolder(stage=artifact.stage, folder=artifact.path.name)] = None
        self.write_metadata("running")
        return artifact

    def write_metadata(self, state: RunState) -> None:
        """Write runs/<name>.json: the state and the folders of this run."""
        if self.metadata is not None and isinstance(self.store, Store):
            update = {"state": state, "stages": tuple(self.stage_folders)}
            text = self.metadata.model_copy(update=update).model_dump_json(indent=1)
            with translate_disk_errors(self.store.folder):
                write_atomic(self.store.folder / f"{self.recipe.name}.json", text)

    def load_pool(self) -> Artifact:
        """Return the pool, with its validation split."""
        settings = build_load_pool_settings(self.recipe, self.folder)
        return self.make(load_pool, settings, self.train_data)

    def load_test(self) -> Artifact:
        """Return the test set."""
        settings = LoadTestSettings(columns=self.recipe.data.columns)
        return self.make(load_test, settings, self.load_pool(), self.test_data)

    def warm_up(self, pool: Artifact, member: int = 0) -> Artifact:
        """Return the warm assistant; the base model if assistant.warm_up_size is 0."""
        if self.recipe.assistant.warm_up_size in (0, "0%"):
            return self.assistant
        return self.make(warm_up, build_warm_up_settings(self.recipe, member), self.assistant, pool)

    def score_pool(self, pool: Artifact, assistant: Artifact) -> tuple[Artifact, Artifact | None]:
        """Return the scores of the pool, and its embeddings if select.embedding_model is set."""
        scores = evidence.make_scores(self, pool, assistant)
        if self.encoder is None:
            return scores, None
        return scores, self.make(embed_pool, EmbedPoolSettings(), pool, self.encoder)

    def select_questions(
        self,
        pool: Artifact,
        scores: Artifact | None = None,
        embeddings: Artifact | None = None,
        earlier: Sequence[Artifact] = (),
        *,
        strategy: str | None = None,
        mixture: str | None = None,
        budget_slice: BudgetSlice = FULL_BUDGET,
        queries: CountOrPercent | None = None,
    ) -> Artifact:
        """Return a ranking of the pool, without the questions of the purchases in `earlier`.

        The others replace those of the recipe. With `mixture` each domain has a quota.
        """
        settings = build_select_settings(
            self.recipe, self.folder, budget_slice=budget_slice, queries=queries,
            strategy=None if strategy is None else VariantRef(name=strategy),
            mixture=None if mixture is None else VariantRef(name=mixture),
        )  # fmt: skip
        samples, losses = evidence.make_selection_evidence(self, pool, settings.mixture)
        return self.make(
            select_questions, settings, pool, scores, embeddings, earlier,
            samples=samples, losses=losses,
        )  # fmt: skip

    def query_teacher(
        self,
        pool: Artifact,
        ranking: Artifact,
        *,
        budget_slice: BudgetSlice = FULL_BUDGET,
        queries: CountOrPercent | None = None,
    ) -> Artifact:
        """Return the teacher's answers in the order of a ranking, for a slice of the budget."""
        settings = build_query_settings(self.recipe, budget_slice=budget_slice, queries=queries)
        return self.make(query_teacher, settings, pool, ranking, *self.few_shot)

    def check_rationales(
        self, pool: Artifact, completions: Artifact, rule: CheckRule | None = None
    ) -> Artifact:
        """Return the teacher's answers as rationales, filtered by a rule (default: check.filter).

        With the rule `confident` the warm assistant scores them.
        """
        settings = build_check_settings(self.recipe, rule)
        judge = None if settings.confidence is None else self.warm_up(pool)
        return self.make(check_rationales, settings, pool, completions, judge)

    def train_assistant(
        self, pool: Artifact, model: Artifact, rationales: Sequence[Artifact], seed_offset: int = 0
    ) -> Artifact:
        """Return the assistant trained on rationales. An epoch is one pass over them."""
        settings = _shift_seed(build_assistant_settings(self.recipe), seed_offset)
        return self.make(train_assistant, settings, model, pool, rationales)

    def annotate(self, pool: Artifact, assistant: Artifact) -> Artifact:
        """Return the assistant's own rationales for the full pool: one or several per question."""
        n_samples, rule = self.recipe.annotate.n_samples or 1, self.recipe.annotate.filter
        if n_samples > 1 and rule != "self_consistent":
            settings = build_sample_settings(self.recipe, n_samples, rule)
            return self.make(sample_rationales, settings, pool, assistant)
        return self.make(annotate, build_annotate_settings(self.recipe), pool, assistant)

    def select_rationales(
        self, pool: Artifact, rationales: Sequence[Artifact], assistant: Artifact
    ) -> Sequence[Artifact]:
        """Return the rationales that student.selector keeps, shorter if student.shorten is set."""
        return evidence.make_selected_rationales(self, pool, rationales, assistant)

    def instruct_student(self) -> Artifact:
        """Return the instruction-tuned student; the base model without student.instruction_data."""
        if self.instructions is None:
            return self.student
        settings = build_instruct_settings(self.recipe)
        return self.make(instruct_student, settings, self.student, instructions=self.instructions)

    def train_student(
        self, pool: Artifact, model: Artifact, rationales: Sequence[Artifact], seed_offset: int = 0
    ) -> Artifact:
        """Return the student trained on rationales. An epoch is as long as the pool, so that every
        arm has the same number of updates. Early stopping uses the validation split.
        """
        settings = _shift_seed(build_student_settings(self.recipe, self.folder), seed_offset)
        rationales = evidence.make_mixed_rationales(self, pool, model, rationales)
        return self.make(train_student, settings, model, pool, rationales, epoch_pool=pool)

    @property
    def student_prompt_mode(self) -> PromptMode:
        """The prompt mode of a student that was trained on rationales."""
        return build_student_settings(self.recipe, self.folder).prompt_mode

    def build_assistant_base_arm(self) -> Arm:
        """Return the base model of the assistant as an arm."""
        return Arm("assistant_base", "Assistant, base model", self.assistant, "assistant", step=0)

    def build_student_base_arm(self) -> Arm:
        """Return the base model of the student as an arm."""
        return Arm("student_base", "Student, base model", self.student, "student", step=0)

    def build_warm_arm(self, warm: Artifact) -> list[Arm]:
        """Return the warm assistant, which answers without a rationale; [] without a warm-up."""
        title = "Assistant, warmed up"
        arm = Arm("assistant_warm", title, warm, "assistant", "answer_only", step=1)
        return [] if warm == self.assistant else [arm]

    def build_start_arms(self, instructed: Artifact) -> list[Arm]:
        """Return the base student and the instruction-tuned student as arms."""
        arm = Arm("student_instructed", "Student, instruction-tuned", instructed, "student", step=1)
        return [self.build_student_base_arm(), arm]

    def predict_all(self, arms: Sequence[Arm]) -> list[Artifact]:
        """Return the answers of every arm to the test questions."""
        pool, test = self.load_pool(), self.load_test()
        return [self.predict(arm, pool, test) for arm in arms]

    def predict(self, arm: Arm, pool: Artifact, test: Artifact) -> Artifact:
        """Return the answers of an arm to the questions of `test`."""
        settings = build_predict_settings(self.recipe, arm.role, arm.prompt_mode)
        return self.make(predict, settings, pool, test, arm.model)

    def evaluate_teacher(self) -> list[tuple[ArmSettings, Artifact]]:
        """Return the teacher's answers to evaluate.teacher_queries test questions, if any."""
        if self.recipe.evaluate.teacher_queries in (0, "0%"):
            return []
        settings = build_evaluate_teacher_settings(self.recipe)
        pool, test = self.load_pool(), self.load_test()
        artifact = self.make(evaluate_teacher, settings, pool, test, *self.few_shot)
        return [(ArmSettings(name="teacher", title="Teacher"), artifact)]

    def report(
        self,
        evaluation: Artifact,
        methods: Sequence[VariantSettings],
        n_variants: int,
        command: str,
    ) -> Artifact:
        """Return the report. `command` reproduces it."""
        settings = build_report_settings(self.recipe, methods, n_variants, command)
        return self.make(report, settings, evaluation)


def open_run(
    recipe: Recipe,
    folder: Path,
    ctx: RunContext,
    methods: Sequence[VariantRef],
    n_seeds: int = 1,
    budgets: Sequence[int | str] = (),
) -> Run:
    """Return a run in the recipe's store, which records itself there in <name>.json."""
    store = Store(resolve_path(folder, recipe.store), ctx.notify)
    metadata = RunMetadata(
        name=recipe.name,
        ledger=str(ctx.ledger),
        folder=str(folder.resolve()),
        recipe=recipe.model_dump(mode="json"),
        methods=tuple(methods),
        n_seeds=n_seeds,
        budgets=tuple(budgets),
    )
    return Run(recipe, folder, store, ctx, metadata)


def build_run_context(recipe: Recipe, folder: Path) -> RunContext:
    """Return the run context of a recipe in `folder`, without progress, notes and checkers."""
    return RunContext(
        run=recipe.name,
        teacher=recipe.teacher,
        ledger=resolve_path(folder, recipe.ledger),
        hard_limit_usd=recipe.hard_limit_usd,
        check=recipe.check,
        device=recipe.device,
        runtime=recipe.runtime,
        server=recipe.assistant.server,
        recipe_folder=folder,
    )


@contextmanager
def _name_key(key: str) -> Iterator[None]:
    """Put the key of the recipe before the message of an InputError."""
    try:
        yield
    except InputError as exc:
        raise InputError(f"{key}: {exc}", key=key) from exc


def _shift_seed(settings: TrainSettings, offset: int) -> TrainSettings:
    """Return settings that shuffle the same rows in another order."""
    return settings.model_copy(update={"seed": settings.seed + offset})
