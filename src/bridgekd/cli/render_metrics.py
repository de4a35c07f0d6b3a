"""The results of a run or a comparison in the terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from bridgekd.stats.metrics import Gain, Interval, MeanEstimate, Metrics, RecoveredGap


def print_metrics(console: Console, metrics: Metrics, name: str) -> None:
    """Print the results of every arm.

    Further tables have the differences to direct distillation, if the run has it, how the models
    answer, pass@k if answers were sampled, and the wrong steps in rationales, if the recipe has a
    step checker.
    """
    has_seeds = any(arm.n_seeds > 1 for arm in metrics.arms.values())
    columns = ["accuracy", "95 % interval", "n", *["seeds"] * has_seeds, "queries", "spend"]
    table = _make_table(name, [*columns, "seconds"])
    for arm in metrics.arms.values():
        table.add_row(
            arm.title,
            f"{arm.accuracy:.1%}",
            _format_interval(arm.ci95),
            str(arm.n_test),
            *([str(arm.n_seeds)] if has_seeds else []),
            f"{arm.n_queries:g}",
            f"${arm.spend_usd:.4f}",
            f"{arm.seconds:.0f}",
        )
    console.print(table)
    if has_seeds:
        console.print("Means over seeds; intervals over seeds and questions.", style="dim")
    chance = metrics.chance
    console.print(f"Chance: {chance.accuracy:.1%}, {chance.rule}.", style="dim")
    if metrics.vs_reference:
        _print_differences(console, metrics)
    _print_answers(console, metrics)
    _print_pass_at_k(console, metrics)
    for arm in metrics.arms.values():
        if (figures := arm.memorization) is not None:
            console.print(
                f"{arm.title}: {figures.student.mean:.1%} of {figures.n_rationales:,} training "
                f"rationales completed word for word; base model {figures.base_model.mean:.1%}.",
                style="dim",
            )
    if any(arm.wrong_steps for arm in metrics.arms.values()):
        _print_rationales(console, metrics)


def _print_differences(console: Console, metrics: Metrics) -> None:
    columns = ["points", "95 % interval", "p (Holm)", "gap recovered", "$ per point"]
    table = _make_table("\nMinus direct distillation at the same budget", columns)
    order = list(metrics.arms)
    for row in sorted(metrics.vs_reference, key=lambda row: order.index(row.arm)):
        arm = metrics.arms[row.arm]
        at = f" (at {row.budget})" if "@" in row.reference and "@" not in row.arm else ""
        table.add_row(
            arm.title + at,
            f"{100 * row.difference:+.1f}",
            "{:+.1f} to {:+.1f}".format(*(100 * end for end in row.ci95)),
            f"{row.p_holm:.2g}",
            _format_gap(arm.gap_recovered),
            _format_usd_per_point(arm.gain),
        )
    console.print(table)
    console.print(_explain_columns(metrics), style="dim")


def _print_answers(console: Console, metrics: Metrics) -> None:
    columns = ["tokens", "cut off", "no answer found", "repetitive"]
    table = _make_table("\nHow the models answer the test questions", columns)
    for arm in metrics.arms.values():
        if (answers := arm.answers) is not None:
            shares = (answers.cut_off, answers.without_answer, answers.repetitive)
            table.add_row(
                arm.title, f"{answers.tokens.mean:.1f}", *(f"{share.mean:.1%}" for share in shares)
            )
    if table.rows:
        console.print(table)


def _print_pass_at_k(console: Console, metrics: Metrics) -> None:
    arms = [(arm, arm.samples) for arm in metrics.arms.values() if arm.samples is not None]
    if not arms:
        return
    first = arms[0][1]
    table = _make_table(
        "\nAccuracy and pass@k", ["accuracy", *(f"pass@{k}" for k in first.pass_at_k)]
    )
    for arm, samples in arms:
        shares = (arm.accuracy, *(p.mean for p in samples.pass_at_k.values()))
        table.add_row(arm.title, *(f"{share:.1%}" for share in shares))
    console.print(table)
    source = f"{first.n_samples:,} samples per question, temperature {first.temperature:g}."
    console.print(f"pass@k: {source}", style="dim")


def _print_rationales(console: Console, metrics: Metrics) -> None:
    columns = ["words", "steps wrong or missing", "in the training set"]
    table = _make_table("\nRationales on the test questions, 95 % intervals", columns)
    for arm in metrics.arms.values():
        if arm.wrong_steps is not None:
            trained = None if arm.training_set is None else arm.training_set.wrong_steps
            words = "{:.1f} to {:.1f}".format(*arm.rationale_words.ci95)
            steps = (_format_wrong_steps(figure) for figure in (arm.wrong_steps, trained))
            table.add_row(arm.title, words, *steps)
    console.print(table)


def _format_wrong_steps(figure: MeanEstimate | None) -> str:
    if figure is None:
        return ""
    low, high = (min(1.0, max(0.0, end)) for end in figure.ci95)
    return _format_interval((low, high))


def _explain_columns(metrics: Metrics) -> str:
    starts = {arm.gain.start for arm in metrics.arms.values() if arm.gain}
    start = f" over: {metrics.arms[starts.pop()].title}" if starts else ""
    tests = sorted({row.test for row in metrics.vs_reference})
    n = len(metrics.vs_reference)
    return f"p: {' and '.join(tests)}, corrected for {n} tests. Gap and points{start}."


def _format_gap(gap: RecoveredGap | None) -> str:
    return "" if gap is None else f"{gap.fraction:.0%} ({_format_interval(gap.ci95, 0)})"


def _format_usd_per_point(gain: Gain | None) -> str:
    if gain is None:
        return ""
    if gain.usd_per_point is None:
        return gain.verdict
    return "{:.4f} ({:.4f} to {:.4f})".format(gain.usd_per_point.value, *gain.usd_per_point.ci95)


def _format_interval(ci95: Interval, digits: int = 1) -> str:
    low, high = ci95
    return f"{low:.{digits}%} to {high:.{digits}%}"


def _make_table(name: str, columns: Sequence[str]) -> Table:
    table = Table(title=name, title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column("arm", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")  # wrapped if narrow, never cut
    return table
