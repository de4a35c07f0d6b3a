"""Count the local work of a stage before it runs: rows, text lengths and the model.

The one idea: the work follows from the type of a stage, the names of its inputs and its settings. A
stage that is unknown here is counted like others of its type, so no local work is omitted.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from bridgekd.io.artifact_store import Artifact, Planned
from bridgekd.lm.objectives import estimate_rollout_fraction
from bridgekd.prompts import ANSWER_PREFIX, render_question
from bridgekd.recipe import LoraOptions, Role, TrainOptions, resolve_count
from bridgekd.records import Example
from bridgekd.selection.difficulty import MEASURES
from bridgekd.stages.annotate import AnnotateSettings, SampleRationalesSettings
from bridgekd.stages.check_rationales import CheckSettings
from bridgekd.stages.measure_memorization import MemorizationSettings
from bridgekd.stages.mix_rationales import MixRationalesSettings
from bridgekd.stages.model_backend import BackendSettings
from bridgekd.stages.pilot import (
    MAX_HOLD_OUT,
    HoldOutSettings,
    SubsampleSettings,
    resolve_fraction,
)
from bridgekd.stages.predict import PredictSettings
from bridgekd.stages.row_settings import AnswerRows, QuestionRows, RationaleRows
from bridgekd.stages.sample_answers import SampleAnswersSettings
from bridgekd.stages.score_pool import ScorePoolSettings, StudentUncertaintySettings
from bridgekd.stages.score_targets import ScoreTargetsSettings
from bridgekd.stages.score_texts import IFDSettings, ScoreRationalesSettings
from bridgekd.stages.select_rationales import SelectRationalesSettings
from bridgekd.stages.shorten_rationales import ShortenSettings
from bridgekd.stages.stats import KeptStats, PurchaseStats
from bridgekd.stages.token_limit import choose_token_limit, resolve_token_limit
from bridgekd.stages.train import TrainSettings
from bridgekd.throughput import WorkKind

_N_SAMPLED = 1000  # rows whose lengths are averaged


@dataclass(frozen=True, slots=True)
class PlannedData:
    """The user's data in a plan. `n_answers`: the number of answers by the purchase's folder."""

    pool: Sequence[Example]
    n_validation: int
    n_test: int
    instructions: Sequence[tuple[str, str]]
    n_answers: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Workload:
    """`n_rows` rows of one type of work with one model.

    base: the model of the user that this model was made from. A row is a training sequence, a
    generated text or a scored question: a prompt and a target, with their mean characters; the
    target may have a rationale. max_new_tokens: of a generated text, expected if its model is still
    to be trained. n_updates, train, lora: only for training. is_timed: whether its
    speed can be measured on this machine.
    """

    kind: WorkKind
    base: Artifact
    role: Role
    n_rows: int
    prompt_characters: float
    target_characters: float
    has_rationale: bool
    max_new_tokens: int
    is_timed: bool
    is_instruction: bool
    n_updates: int = 0
    train: TrainOptions | None = None
    lora: LoraOptions | None = None

    @property
    def base_name(self) -> str:
        """The name of the base model, without its revision."""
        return self.base.path.name.partition("@")[0]


class WorkCounter:
    """Counts the local work of every stage of one plan.

    longest_rationale: the expected tokens of the longest rationale.
    """

    def __init__(
        self,
        planned: Mapping[str, Planned],
        data: PlannedData,
        assistant: Artifact,
        longest_rationale: float,
    ) -> None:
        self._planned, self._data, self._assistant = planned, data, assistant
        examples, pairs = data.pool[:_N_SAMPLED], data.instructions[:_N_SAMPLED] or [("", "")]
        self._question = fmean(len(render_question(e)) for e in examples)
        answers = [len(e.answer or "") for e in examples]
        self._answer = fmean(answers)
        # A character is at most about one token.
        self._longest_answer = len(ANSWER_PREFIX) + max(answers)
        self._longest_rationale = longest_rationale
        self._instruction = tuple(fmean(map(len, texts)) for texts in zip(*pairs, strict=True))

    def count(self, planned: Planned) -> list[Workload]:
        """Return the work of a stage; empty if it uses no local model."""
        works: list[Workload] = []
        match planned.stage.kind:
            case WorkKind.TRAINING:
                works += self._count_training(planned)
            case WorkKind.GENERATION:
                works.append(self._count_generation(planned))
            case WorkKind.SCORING:
                works += self._count_scoring(planned)
        return [*works, *self._count_confidence(planned)]

    def _count_training(self, planned: Planned) -> Iterator[Workload]:
        settings = planned.settings
        assert isinstance(settings, TrainSettings)
        train = settings.train
        has_rationale = isinstance(settings.rows, RationaleRows | QuestionRows)
        n_updates = settings.compute_n_updates(max(1, self._count_epoch(planned, settings)))
        n_rows = n_updates * train.batch_size
        if "wrong" in planned.inputs:  # at least one wrong rationale beside each correct one
            n_rows *= 2
        training = self._make(planned, WorkKind.TRAINING, n_rows, has_rationale=has_rationale)
        yield replace(training, n_updates=n_updates, train=train, lora=settings.lora)
        if "reference" in planned.inputs:  # the reference model reads every sequence
            yield self._make(planned, WorkKind.SCORING, n_rows, "reference")
        uses_cot = settings.prompt_mode == "cot"
        if n_texts := round(n_rows * estimate_rollout_fraction(settings.objective)):
            yield self._make(planned, WorkKind.GENERATION, n_texts, has_rationale=uses_cot)
        if "instructions" in planned.inputs or train.holdout_size is not None:
            return
        if n_texts := train.n_evaluations * self._data.n_validation:
            yield self._make(planned, WorkKind.GENERATION, n_texts, has_rationale=uses_cot)

    def _count_generation(self, planned: Planned) -> Workload:
        settings, n_texts, has_rationale = planned.settings, 1, True
        n_rows = self._count_pool(planned)
        if "test" in planned.inputs:
            n_rows = self._count_held_out(planned.inputs["test"][0]) or self._data.n_test
        if isinstance(settings, ShortenSettings):
            n_rows = sum(map(self._count_rationales, planned.inputs["rationales"]))
            n_texts = max(0, settings.chunks.n_chunks - 2)
        elif isinstance(settings, AnnotateSettings):
            n_texts += settings.n_samples
        elif isinstance(settings, SampleRationalesSettings | StudentUncertaintySettings):
            n_texts = settings.n_samples
        elif isinstance(settings, PredictSettings):
            has_rationale = settings.prompt_mode == "cot"
            n_texts = settings.n_samples if isinstance(settings, SampleAnswersSettings) else 1
        n_rows *= n_texts
        return self._make(planned, WorkKind.GENERATION, n_rows, has_rationale=has_rationale)

    def _count_scoring(self, planned: Planned) -> Iterator[Workload]:
        settings, n_rows = planned.settings, self._count_pool(planned)
        name = "model" if "model" in planned.inputs else list(planned.inputs)[-1]
        # Those of every question, at most.
        reads_text = isinstance(settings, ScoreRationalesSettings | ScoreTargetsSettings)
        if isinstance(settings, ScoreTargetsSettings):
            n_rows = sum(map(self._count_rationales, planned.inputs["rationales"]))
        if isinstance(settings, MemorizationSettings):  # by the student and by its base model
            n_rows, reads_text = 2 * min(settings.n_rationales, n_rows), True
        yield self._make(planned, WorkKind.SCORING, n_rows, name, has_rationale=reads_text)
        if isinstance(settings, ScorePoolSettings):
            measure = MEASURES.load(settings.difficulty)
            if measure.score_reduction is not None:  # two models score each half of the pool
                yield self._make(
                    planned, WorkKind.SCORING, 2 * n_rows, "halves", has_rationale=False
                )
            n_texts = 0
            if measure.score_answers is not None:
                n_texts = measure.count_answers(MEASURES.parse_options(settings.difficulty))
            if n_rows := n_rows * max(n_texts, measure.score_tokens is not None):
                yield self._make(planned, WorkKind.GENERATION, n_rows, has_rationale=False)

    def _count_confidence(self, planned: Planned) -> Iterator[Workload]:
        """Yield the work of the models that score rationales."""
        settings = planned.settings
        if isinstance(settings, IFDSettings):  # each text with its question and without
            yield self._make(planned, WorkKind.SCORING, 2 * self._count_pool(planned))
        if isinstance(settings, SelectRationalesSettings):
            selector = settings.load_selector()
            n_rows = sum(map(self._count_rationales, planned.inputs["rationales"]))
            if selector.needs_confidence or selector.needs_sentences:
                yield self._make(planned, WorkKind.SCORING, n_rows, "assistant")
            if selector.needs_sentences:
                yield self._make(planned, WorkKind.SCORING, n_rows, "student")
        if not isinstance(settings, CheckSettings | AnnotateSettings | StudentUncertaintySettings):
            return
        if settings.confidence is not None:
            n_rows = self._count_pool(planned)
            if "completions" in planned.inputs:
                n_rows = self._count_answers(planned.inputs["completions"][0])
            name = "assistant" if "assistant" in planned.inputs else "model"
            yield self._make(planned, WorkKind.SCORING, n_rows, name)

    def _make(
        self,
        planned: Planned,
        kind: WorkKind,
        n_rows: int,
        model: str = "model",
        *,
        has_rationale: bool = True,
    ) -> Workload:
        """Return work of this stage with the model that is its input `model`."""
        base, settings, is_timed = planned.inputs[model][0], planned.settings, model != "encoder"
        while base.path.name in self._planned:
            (base,) = self._planned[base.path.name].inputs["model"]
        if isinstance(settings, BackendSettings):
            backend = settings.backend if kind is WorkKind.GENERATION else settings.scoring
            is_timed = is_timed and backend != "server"
        max_new_tokens = 0
        if kind is WorkKind.GENERATION:
            max_new_tokens = self._count_new_tokens(planned, planned.inputs[model][0], base)
        is_instruction = "instructions" in planned.inputs
        prompt, target = self._instruction if is_instruction else (self._question, self._answer)
        return Workload(
            kind=kind,
            base=base,
            role="assistant" if base == self._assistant else "student",
            n_rows=n_rows,
            prompt_characters=prompt,
            target_characters=target,
            has_rationale=has_rationale,
            max_new_tokens=max_new_tokens,
            is_timed=is_timed,
            is_instruction=is_instruction,
        )

    def _count_new_tokens(self, planned: Planned, writer: Artifact, base: Artifact) -> int:
        """Return the maximum tokens of a text that this stage generates with a model.

        writer: the model that is its input. base: the model of the user that it was made from.
        """
        limit, training = getattr(planned.settings, "max_new_tokens", 0), planned.settings
        if not isinstance(training, TrainSettings) and not writer.done:
            training = self._planned[writer.path.name].settings
        if isinstance(training, TrainSettings):
            if isinstance(training.rows, RationaleRows):
                longest = min(training.train.max_length, self._longest_rationale)
                return choose_token_limit(limit, longest)
            if isinstance(training.rows, AnswerRows):
                return choose_token_limit(limit, self._longest_answer)
        return resolve_token_limit(limit, writer if writer.done else base)

    def _count_epoch(self, planned: Planned, settings: TrainSettings) -> int:
        """Return the rows of one epoch; training may stop before."""
        if "epoch_pool" in planned.inputs:
            return len(self._data.pool)
        if "instructions" in planned.inputs:
            return len(self._data.instructions)
        if "rationales" in planned.inputs:
            return sum(self._count_rationales(a) for a in planned.inputs["rationales"])
        n_pool = n_rows = self._count_pool(planned)
        if not isinstance(settings.rows, AnswerRows):
            return n_pool
        if settings.rows.half is not None:
            n_rows = n_pool // 2
        return n_rows if settings.rows.size is None else resolve_count(settings.rows.size, n_pool)

    def _count_rationales(self, artifact: Artifact) -> int:
        """Return the rationales of a stage; for a planned purchase, as if all answers are kept."""
        if artifact.has_manifest:
            return artifact.read_stats(KeptStats).n_kept
        planned = self._planned[artifact.path.name]
        if "completions" in planned.inputs:
            return self._count_answers(planned.inputs["completions"][0])
        if isinstance(planned.settings, SubsampleSettings):
            n = self._count_rationales(planned.inputs["rationales"][0])
            return resolve_fraction(planned.settings.fraction, n)
        if isinstance(planned.settings, MixRationalesSettings | ShortenSettings):
            return sum(map(self._count_rationales, planned.inputs["rationales"]))
        n_samples = 1
        if isinstance(planned.settings, SampleRationalesSettings):
            n_samples = planned.settings.n_samples
        return n_samples * self._count_pool(planned)

    def _count_answers(self, purchase: Artifact) -> int:
        if purchase.has_manifest:
            return purchase.read_stats(PurchaseStats).n_queries
        return self._data.n_answers[purchase.path.name]

    def _count_pool(self, planned: Planned) -> int:
        held_out = map(self._count_held_out, planned.inputs.get("pool", ()))
        return len(self._data.pool) - sum(held_out)

    def _count_held_out(self, artifact: Artifact) -> int:
        """Return the questions that the pilot held out of this pool; 0 for other artifacts."""
        settings = self._planned[artifact.path.name].settings
        if not isinstance(settings, HoldOutSettings):
            return 0
        return min(settings.n, len(self._data.pool) // MAX_HOLD_OUT)
