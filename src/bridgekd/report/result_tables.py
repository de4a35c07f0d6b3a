"""The tables of the arms' accuracy."""

from bridgekd.report.report_data import ReportData
from bridgekd.report.tables import (
    Table,
    format_p_value,
    format_percent,
    format_percent_interval,
    format_points_interval,
    format_usd,
)
from bridgekd.stats.metrics import GroupAccuracy


def build_arm_table(data: ReportData) -> Table:
    """Return every arm with its interval and what it took."""
    arms = [(arm.title, arm.metrics) for arm in data.arms]
    has_seeds = any(arm.n_seeds > 1 for _, arm in arms)
    rows = tuple(
        (
            title,
            format_percent(arm.accuracy),
            f"{format_percent(arm.ci95[0])} to {format_percent(arm.ci95[1])}",
            f"{arm.n_test}",
            *([f"{arm.n_seeds}"] if has_seeds else []),
            f"{arm.n_queries:g}",
            format_usd(arm.spend_usd),
            f"{arm.seconds:.0f}",
        )
        for title, arm in arms
    )
    columns = ["Arm", "Accuracy", "95 % interval", "Test questions"]
    columns += ["Seeds"] * has_seeds + ["Queries", "Spend", "Seconds"]
    interval = "over seeds and questions; amounts are means over seeds" if has_seeds else "Wilson's"
    chance = data.metrics.chance
    return Table(
        "All arms on the test questions",
        tuple(columns),
        rows,
        "l" + "r" * (len(columns) - 1),
        note=f"Intervals are {interval}. Chance is {format_percent(chance.accuracy)}: "
        f"{chance.rule}. Queries, spend and seconds are what this model alone took.",
        highlighted=_find_highlighted(data),
    )


def build_difference_table(data: ReportData) -> Table | None:
    """Return every trained student minus direct distillation; None if nothing was compared."""
    differences = data.metrics.vs_reference
    if not differences:
        return None
    rows = tuple(
        (
            data.titles[row.arm],
            data.titles[row.reference],
            format_points_interval(row.difference, row.ci95),
            format_p_value(row.p_holm),
        )
        for row in differences
    )
    tests = " and ".join(sorted({row.test for row in differences}))
    return Table(
        "Minus direct distillation at the same budget, in percentage points",
        ("Arm", "Minus", "Difference (95 % interval)", "p (Holm)"),
        rows,
        "llrr",
        note=f"Test: {tests}. p is corrected for {len(rows)} "
        f"comparison{'s' * (len(rows) > 1)} (Holm).",
    )


def build_accuracy_by_domain(data: ReportData) -> Table | None:
    """Return the accuracy in every domain; None if the test questions have only one."""
    n_by_domain: dict[str, int] = {}
    for arm in data.metrics.arms.values():
        for domain, row in arm.by_domain.items():
            n_by_domain[domain] = max(n_by_domain.get(domain, 0), row.n_test)
    if len(n_by_domain) < 2:
        return None
    names = sorted(n_by_domain)
    rows = tuple(
        (arm.title, *(_format_group(arm.metrics.by_domain.get(name)) for name in names))
        for arm in data.arms
    )
    return Table(
        "Accuracy by domain, with 95 % intervals",
        ("Arm", *(f"{name or 'none'} (n = {n_by_domain[name]})" for name in names)),
        rows,
        "l" + "r" * len(names),
        highlighted=_find_highlighted(data),
    )


def _format_group(group: GroupAccuracy | None) -> str:
    return "not asked" if group is None else format_percent_interval(group.accuracy, group.ci95)


def _find_highlighted(data: ReportData) -> tuple[int, ...]:
    return tuple(i for i, arm in enumerate(data.arms) if arm.is_highlighted)
