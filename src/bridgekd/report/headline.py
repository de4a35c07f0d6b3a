"""The result of a run in one or two sentences, and the arm that they are about."""

from collections.abc import Sequence

from bridgekd.report.tables import format_percent
from bridgekd.stats.compute_metrics import REFERENCE_ARM
from bridgekd.stats.metrics import Metrics


def build_headline(metrics: Metrics, lead: str | None) -> str:
    """Return the result of the arm with the label `lead`, whichever way it went."""
    if lead is None:
        return "No trained student was evaluated."
    arm, chance = metrics.arms[lead], metrics.chance
    low, high = map(format_percent, arm.ci95)
    seeds = f" over {arm.n_seeds} seeds" if arm.n_seeds > 1 else ""
    text = (
        f"{arm.title} answers {format_percent(arm.accuracy)} of {arm.n_test} test questions "
        f"correctly{seeds} (95 % interval {low} to {high}) after {arm.n_queries:g} teacher queries "
        f"for ${arm.spend_usd:.2f}."
    )
    if arm.ci95[0] <= chance.accuracy:
        text += f" This is not above chance ({format_percent(chance.accuracy)}: {chance.rule})."
    return f"{text} {_compare_with_reference(metrics, lead)}".rstrip()


def find_leading_arm(metrics: Metrics, methods: Sequence[str]) -> str | None:
    """Return the label of the trained student that the run is about, at its largest budget: of the
    first method, the reference last. None if no student was trained.
    """
    trained = [label for label, arm in metrics.arms.items() if arm.is_trained]
    names = dict.fromkeys([*methods, *(metrics.arms[label].arm for label in trained)])
    for name in sorted(names, key=lambda name: name == REFERENCE_ARM):
        if (label := _find_largest_budget(metrics, name)) in trained:
            return label
    return None


def _compare_with_reference(metrics: Metrics, lead: str) -> str:
    reference = _find_largest_budget(metrics, REFERENCE_ARM)
    if reference in (None, lead):
        return ""
    pair, direct = metrics.find_pair(lead, reference), metrics.arms[reference]
    result, test = "this run does not show a difference", "not tested"
    if pair is not None:
        test = f"p = {pair.p:.2g}, {pair.test}"
        if pair.p < 0.05:
            is_better = metrics.arms[lead].accuracy > direct.accuracy
            result = f"{metrics.arms[lead].title} is {'better' if is_better else 'worse'}"
    low, high = map(format_percent, direct.ci95)
    return (
        f"Direct distillation with the same budget reaches {format_percent(direct.accuracy)} "
        f"({low} to {high}); on the same questions {result} ({test})."
    )


def _find_largest_budget(metrics: Metrics, name: str) -> str | None:
    labels = [label for label, arm in metrics.arms.items() if arm.arm == name]
    return labels[-1] if labels else None
