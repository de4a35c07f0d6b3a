"""The content of metrics.json as one frozen model, which `evaluate` writes.

`docs/metrics.schema.json` is the JSON schema of `Metrics`. Accuracies, fractions and differences
are in [0, 1]; only `Gain` is in percentage points. Every `ci95` is a 95 % interval (low, high).
"""

import json

from pydantic import BaseModel, ConfigDict

from bridgekd.stats.calibration import Calibration
from bridgekd.stats.chance_baseline import ChanceBaseline

Interval = tuple[float, float]


class FrozenMetrics(BaseModel):
    """A frozen part of metrics.json that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class MeanEstimate(FrozenMetrics):
    """A mean with its interval."""

    mean: float
    ci95: Interval


class RatioEstimate(FrozenMetrics):
    """A ratio of two measured amounts with its interval."""

    value: float
    ci95: Interval


class GroupAccuracy(FrozenMetrics):
    """The accuracy on one group of test questions: a domain, or a number of steps."""

    accuracy: float
    ci95: Interval
    n_test: int


class SeedMetrics(FrozenMetrics):
    """One run of an arm; `ci95` is Wilson's interval. `calibration`: by stage, one entry for each
    time that the stage filtered rationales by confidence. Of the `n_queries`, `n_without_answer`
    were refused or failed; `n_at_reserve` had no usable token counts and cost their maximum.
    """

    seed: int
    accuracy: float
    ci95: Interval
    n_correct: int
    n_test: int
    n_queries: int
    n_without_answer: int = 0
    n_at_reserve: int = 0
    spend_usd: float
    seconds: float
    calibration: dict[str, tuple[Calibration, ...]] = {}


class TrainingSetMetrics(FrozenMetrics):
    """The rationales that a student was trained on: their number for every seed, their words, and
    the fraction of their steps that is wrong or missing (None without a step checker).
    """

    n_kept: tuple[int, ...]
    words: MeanEstimate | None
    wrong_steps: MeanEstimate | None


class AnswerMetrics(FrozenMetrics):
    """How an arm answers the test questions: mean tokens of a text, and shares of texts that were
    cut off at their maximum of tokens, that have no answer that can be read, and that repeat
    themselves. Tokens are those of the arm's own tokenizer, or those that the teacher billed.
    """

    tokens: MeanEstimate
    cut_off: MeanEstimate
    without_answer: MeanEstimate
    repetitive: MeanEstimate


class PassMetrics(FrozenMetrics):
    """`pass_at_k`: the probability that at least one of k answers is correct, by k, estimated from
    `n_samples` answers to every test question at `temperature`.
    """

    n_samples: int
    temperature: float
    pass_at_k: dict[int, MeanEstimate]


class MemorizationMetrics(FrozenMetrics):
    """The shares of the student's training rationales whose second half the student, and its base
    model, write word for word after the first half. `n_rationales` is summed over seeds.
    """

    n_rationales: int
    student: MeanEstimate
    base_model: MeanEstimate


class Gain(FrozenMetrics):
    """Percentage points that a trained student gained over the arm `start`, and the cost of one
    point (None unless the full interval is a gain). `verdict`: gain, loss, not shown.
    """

    start: str
    points: float
    ci95: Interval
    p: float
    verdict: str
    usd_per_point: RatioEstimate | None
    queries_per_point: RatioEstimate | None


class RecoveredGap(FrozenMetrics):
    """(arm - start) / (teacher - start) on the test questions that the teacher answered."""

    start: str
    fraction: float
    ci95: Interval
    n_test: int


class ArmMetrics(FrozenMetrics):
    """One arm at one budget over all seeds. Amounts are means over seeds, of all stages that this
    model was made from. `interval` names the method of `ci95`. `is_trained`: a student that was
    trained on the task. `title`: for people, with the budget if the arm has several.
    """

    arm: str
    title: str
    budget: str
    is_trained: bool
    accuracy: float
    ci95: Interval
    interval: str
    n_test: int
    n_seeds: int
    n_correct: int
    n_queries: int | float
    n_without_answer: int | float = 0
    n_at_reserve: int | float = 0
    spend_usd: float
    seconds: float
    by_domain: dict[str, GroupAccuracy]
    by_steps: dict[str, GroupAccuracy]
    rationale_words: MeanEstimate
    answers: AnswerMetrics | None
    samples: PassMetrics | None
    memorization: MemorizationMetrics | None
    wrong_steps: MeanEstimate | None
    training_set: TrainingSetMetrics | None
    by_seed: tuple[SeedMetrics, ...]
    gain: Gain | None
    gap_recovered: RecoveredGap | None


class PairDifference(FrozenMetrics):
    """Arm minus reference, paired on the test questions that both answered; `p` is two-sided."""

    arm: str
    reference: str
    n_test: int
    n_seeds: int
    difference: float
    ci95: Interval
    p: float
    test: str
    p_by_seed: tuple[float, ...]


class ReferenceDifference(PairDifference):
    """A trained student minus direct distillation at the reference's `budget`. `p_holm` is
    corrected for the number of these differences.
    """

    budget: str
    p_holm: float


class Metrics(FrozenMetrics):
    """All of metrics.json. The keys of `arms` are labels: the arm's name, followed by `@budget` if
    the arm has several budgets. `step_source` is the source of the number of steps of a question:
    "checker", the arm whose rationales were counted, or "".
    """

    arms: dict[str, ArmMetrics]
    pairs: tuple[PairDifference, ...]
    vs_reference: tuple[ReferenceDifference, ...]
    chance: ChanceBaseline
    step_source: str = ""

    def find_pair(self, first: str, second: str) -> PairDifference | None:
        """Return the test of two arms by their labels, in either order; None if not compared."""
        labels = {first, second}
        return next((p for p in self.pairs if {p.arm, p.reference} == labels), None)


if __name__ == "__main__":
    print(json.dumps(Metrics.model_json_schema(), indent=1))
