"""The result of a run in a few sentences, and the arm that they describe."""

from collections.abc import Sequence

from bridgekd.report.tables import format_interval, format_percent
from bridgekd.stats.compute_metrics import REFERENCE_ARM
from bridgekd.stats.metrics import Metrics


def build_headline(metrics: Metrics, lead: str | None) -> str:
    """Return the result of the arm with the label `lead`, whether it is better or worse."""
    if lead is None:
        return "No trained student was evaluated."
    arm, chance = metrics.arms[lead], metrics.chance
    seeds = f" over {arm.n_seeds} seeds" if arm.n_seeds > 1 else ""
    sentences = [
        f"{arm.title} answers {format_percent(arm.accuracy)} of {arm.n_test} test questions "
        f"correctly{seeds} (95 % interval {format_interval(arm.ci95)}).",
        f"It used {arm.n_queries:g} teacher queries, which cost ${arm.spend_usd:.2f}.",
    ]
    if arm.ci95[0] <= chance.accuracy:
        sentences.append(
            f"This accuracy is not above chance ({format_percent(chance.accuracy)}: {chance.rule})."
        )
    return " ".join([*sentences, *_compare_with_reference(metrics, lead)])


def find_leading_arm(metrics: Metrics, methods: Sequence[str]) -> str | None:
    """Return the label of the trained student that the report is about, at its largest budget.

    It is the student of the first of `methods` that trained one; direct distillation comes last.
    Return None if no student was trained.
    """
    trained = [label for label, arm in metrics.arms.items() if arm.is_trained]
    names = dict.fromkeys([*methods, *(metrics.arms[label].arm for label in trained)])
    for name in sorted(names, key=lambda name: name == REFERENCE_ARM):
        if (label := _find_largest_budget(metrics, name)) in trained:
            return label
    return None


def _compare_with_reference(metrics: Metrics, lead: str) -> list[str]:
    reference = _find_largest_budget(metrics, REFERENCE_ARM)
    if reference in (None, lead):
        return []
    arm, direct = metrics.arms[lead], metrics.arms[reference]
    result, test = "this run does not show a difference", "not tested"
    if (pair := metrics.find_pair(lead, reference)) is not None:
        test = f"p = {pair.p:.2g}, {pair.test}"
        if pair.p < 0.05:
            result = f"{arm.title} is {'better' if arm.accuracy > direct.accuracy else 'worse'}"
    return [
        f"Direct distillation with the same budget reaches {format_percent(direct.accuracy)} "
        f"({format_interval(direct.ci95)}).",
        f"On the same questions, {result} ({test}).",
    ]


def _find_largest_budget(metrics: Metrics, name: str) -> str | None:
    labels = [label for label, arm in metrics.arms.items() if arm.arm == name]
    return labels[-1] if labels else None
