"""The result in a sentence, and of which arm it speaks."""

from collections.abc import Mapping

from bridgekd.report.story import ArmRow
from bridgekd.stages.naming import in_order
from bridgekd.stats.metrics import Metrics

_LEADING = (
    "bridge", "random", "ta_in_the_loop", "mentor_kd", "no_instruct", "diverse", "hardest",
    "direct", "direct_full", "answers_only",
)  # fmt: skip


def headline(arms: Mapping[str, ArmRow], metrics: Metrics) -> str:
    """The result in a sentence or two, with intervals, whichever way it went.

    Of several budgets it speaks of the largest.
    """
    best = leading(arms)
    if best is None:
        return "No trained student was measured."
    seeds = f" over {best.n_seeds} seeds" if best.n_seeds > 1 else ""
    text = (
        f"{best.title} answers {_share(best.accuracy)} of {best.n_test} test questions "
        f"right{seeds} (95 % interval {_share(best.low)} to {_share(best.high)}) after "
        f"{best.n_queries:g} teacher queries for ${best.spend_usd:.2f}."
    )
    if best.low <= metrics.chance.accuracy:
        text += (
            f" That is not above chance ({_share(metrics.chance.accuracy)}: {metrics.chance.rule})."
        )
    direct = _largest(arms, "direct")
    if direct is None or best is direct:
        return text
    pair = metrics.find_pair(best.name, direct.name)
    if pair is None or pair.p >= 0.05:
        verdict = "this run does not show a difference"
    elif best.accuracy > direct.accuracy:
        verdict = "the assistant paid off"
    else:
        verdict = "here the assistant did harm"
    return (
        f"{text} Direct distillation with the same budget reaches {_share(direct.accuracy)} "
        f"({_share(direct.low)} to {_share(direct.high)}); on the same questions {verdict} "
        f"({'not tested' if pair is None else f'p = {pair.p:.2g}, {pair.test}'})."
    )


def leading(arms: Mapping[str, ArmRow]) -> ArmRow | None:
    """The trained student that a reader asks about first, at its largest budget."""
    return next((a for n in _LEADING if (a := _largest(arms, n))), None)


def _largest(arms: Mapping[str, ArmRow], name: str) -> ArmRow | None:
    found = [label for label in in_order(arms) if label.partition("@")[0] == name]
    return arms[found[-1]] if found else None


def _share(share: float) -> str:
    return f"{100 * share:.1f} %"
