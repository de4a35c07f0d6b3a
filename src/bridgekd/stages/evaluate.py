"""metrics.json from the predictions of all arms."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from bridgekd.errors import InputError
from bridgekd.grading.answer_extraction import split_answer
from bridgekd.grading.reasoning_steps import count_steps, group_counts
from bridgekd.io.artifact_store import Artifact, Stats, stage
from bridgekd.io.metrics_file import write_metrics
from bridgekd.io.row_files import read_rows
from bridgekd.messages import format_value
from bridgekd.recipe import FrozenModel
from bridgekd.records import Example, Prediction
from bridgekd.stages.arm_results import ArmReader, ArmSettings
from bridgekd.stages.run_context import RunContext, StepChecker
from bridgekd.stats.chance_baseline import compute_chance_baseline
from bridgekd.stats.compute_metrics import compute_metrics
from bridgekd.throughput import WorkKind


class EvaluateSettings(FrozenModel):
    """`arms` has one entry per prediction artifact, in the order of all tables."""

    arms: tuple[ArmSettings, ...]
    step_checker: str | None


class EvaluateStats(Stats):
    n_arms: int
    n_models: int


@stage(version=10, title="Evaluation")
def evaluate(
    output_dir: Path,
    settings: EvaluateSettings,
    ctx: RunContext,
    test: Artifact,
    *predictions: Artifact,
    figures: Sequence[Artifact] = (),
) -> EvaluateStats:
    """Write metrics.json: every arm at every budget over all seeds, its cost and gain, and pairs of
    arms. figures: what other stages measured of the models.
    """
    examples = read_rows(test.path / "test.parquet", Example)
    name = settings.step_checker
    check = None if name is None else get_step_checker(ctx.checkers, name)
    reader = ArmReader({e.id: e for e in examples}, check, figures)
    results = [reader.read_arm(arm, p) for arm, p in zip(settings.arms, predictions, strict=True)]
    step_source, steps = _group_by_steps(examples, check, settings.arms, predictions)
    metrics = compute_metrics(
        results,
        {e.id: e.domain for e in examples},
        chance=compute_chance_baseline(
            [e.answer or "" for e in examples], [e.choices for e in examples]
        ),
        steps=steps,
        step_source=step_source,
    )
    write_metrics(output_dir, metrics)
    return EvaluateStats(n_arms=len(metrics.arms), n_models=len(results))


def get_step_checker(checkers: Mapping[str, StepChecker], name: str) -> StepChecker:
    """Return the step checker of this name. Raises InputError if it was not passed in."""
    if name not in checkers:
        raise InputError(
            f"evaluate.step_checker names the checker {format_value(name)}. Known: "
            f"{', '.join(checkers) or 'none'}. Remove the key, or pass the function from Python: "
            "run(..., checkers={name: function})."
        )
    return checkers[name]


def _group_by_steps(
    examples: Sequence[Example],
    check: StepChecker | None,
    arms: Sequence[ArmSettings],
    predictions: Sequence[Artifact],
) -> tuple[str, dict[str, str]]:
    """Return (source, group of every question by its number of steps); ("", {}) without a source.

    The source is the checker: the steps that an empty rationale lacks. Else it is the lines and
    sentences of the teacher's rationales, correct or not, or of an assistant trained on them.
    """
    if check is not None:
        counts = {e.id: c.n_steps for e in examples if (c := check(e.question, "")) is not None}
        if any(counts.values()):
            return "checker", group_counts(counts)
    pairs = list(zip(arms, predictions, strict=True))
    sources = [(arm, p) for arm, p in pairs if p.manifest.kind is WorkKind.PAID]
    sources += [
        (arm, p)
        for arm, p in pairs
        if arm.role == "assistant" and p.get_input("model").get_inputs("rationales")
    ]
    for arm, artifact in sources:
        rows = read_rows(artifact.path / "predictions.parquet", Prediction)
        counts = {r.id: n for r in rows if (n := count_steps(split_answer(r.text)[0]))}
        if counts:
            return arm.name, group_counts(counts)
    return "", {}
