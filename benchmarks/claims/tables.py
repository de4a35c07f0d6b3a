"""Tables as Markdown, and where they stand in a document."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from bridgekd.selection.representativeness import SelectionFigure
from bridgekd.stats.metrics import MeanEstimate
from bridgekd.stats.mixed_effects import Estimate, estimate_proportion
from claims.experiments import Experiment
from claims.noninferiority import ArmVerdict, compare_with_reference
from claims.results import Line
from claims.saved_seeds import SavedSeed, collect_answers
from claims.summary import NO, OPEN, YES, Claim


def format_markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A head and rows as Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)


def format_summary(claims: Sequence[Claim], n_seeds: int) -> str:
    """The claims, the papers' figures and ours; one seed says nothing of other trainings. What is
    held to is the direction; whether the size is in the paper's range is for the reader's eye.
    """
    rows = [(c.claim, c.paper, c.here, c.holds) for c in claims]
    holds = "its direction holds" if n_seeds > 1 else "its direction holds for this one training"
    return format_markdown(("claim", "paper", "here (95 % interval)", holds), rows)


def format_experiment(experiment: Experiment, lines: Mapping[str, Line]) -> str:
    """An experiment's lines; columns that none of them fills are left out."""
    against = experiment.against
    head = ("", "accuracy, %", "minus the reference", "p (Holm)", "queries", "$", "wrong steps, %",
            "steps it learnt from wrong, %", "AUROC of the filter", "picks")  # fmt: skip
    rows = [_format_row(line, title in against) for title, line in lines.items()]
    filled = [any(row[k] for row in rows) for k in range(len(head))]
    kept = [[cell for cell, keep in zip(row, filled, strict=True) if keep] for row in rows]
    return format_markdown([h for h, keep in zip(head, filled, strict=True) if keep], kept)


def format_noninferiority(experiment: Experiment, seeds: Sequence[SavedSeed]) -> str:
    """The arms of an experiment with a margin against its reference, and how far what they bought
    is from the pool.
    """
    reference, points = experiment.against[0], f"{100 * (experiment.margin or 0):g} points"
    right = collect_answers(seeds)
    arms = {title: values for title, values in right.items() if title != reference}
    verdicts = compare_with_reference(right[reference], arms, experiment.margin or 0)
    head = ("", "accuracy, %", f"minus {reference}, points (95 %)", "lower limit, one-sided 95 %",
            f"p: not below by {points} (Holm)", f"not below by {points}", "p: above (Holm)",
            "queries", "$", "local s")  # fmt: skip
    rows = []
    for k, (title, values) in enumerate(right.items()):
        accuracy = estimate_proportion(values)
        saved = [seed.choices[k].arm for seed in seeds]
        rows.append((
            title, _format_percents(accuracy.mean, accuracy.ci95),
            *_format_verdict(verdicts.get(title)),
            f"{np.mean([arm.n_queries for arm in saved]):g}",
            f"{np.mean([arm.spend_usd for arm in saved]):.2f}",
            f"{np.mean([arm.seconds for arm in saved]):.0f}",
        ))  # fmt: skip
    has_figures = any(choice.figures for choice in seeds[0].choices)
    return format_markdown(head, rows) + (f"\n\n{format_distances(seeds)}" if has_figures else "")


def _format_verdict(verdict: ArmVerdict | None) -> tuple[str, ...]:
    if verdict is None:
        return ("reference", "", "", "", "")
    shown = {True: YES, False: NO, None: OPEN}[verdict.is_not_below]
    return (
        _format_points(verdict.difference),
        f"{100 * verdict.low:+.1f}",
        f"{verdict.p_not_below:.2g}",
        shown,
        f"{verdict.p_above:.2g}",
    )


def format_distances(seeds: Sequence[SavedSeed]) -> str:
    """Means over seeds of the distances of every arm's picks to the pool, with the number of seeds
    in which they are outside the limits for random picks; below them the means of these limits.
    """
    by_arm = [[seed.choices[k] for seed in seeds] for k in range(len(seeds[0].choices))]
    names = [figure.name for figure in by_arm[0][0].figures]
    rows = [
        (
            choices[0].arm.arm,
            *(
                _format_figures([choice.figures[n] for choice in choices])
                for n in range(len(names))
            ),
            _format_fractions([choice.picks for choice in choices]),
        )
        for choices in by_arm
    ]
    limits = (
        _format_limits([choice.figures[n] for choice in by_arm[0]]) for n in range(len(names))
    )
    head = ("", *(f"{name} (seeds outside)" for name in names), "picks")
    return format_markdown(head, [*rows, ("limits for random picks", *limits, "")])


def _format_figures(figures: Sequence[SelectionFigure]) -> str:
    mean = np.mean([figure.value for figure in figures])
    return f"{mean:.3f} ({sum(figure.is_outside for figure in figures)})"


def _format_limits(figures: Sequence[SelectionFigure]) -> str:
    high = f"{np.mean([figure.high for figure in figures]):.3f}"
    lows = [figure.low for figure in figures if figure.low is not None]
    return f"{np.mean(lows):.3f} to {high}" if lows else f"at most {high}"


def _format_fractions(picks: Sequence[Mapping[str, float]]) -> str:
    domains = sorted({domain for each in picks for domain in each})
    means = {d: np.mean([each.get(d, 0.0) for each in picks]) for d in domains}
    return ", ".join(f"{domain} {mean:.0%}" for domain, mean in means.items())


def format_readme(lines: Mapping[str, Line], titles: Mapping[str, str]) -> str:
    """The arms of the first experiment for the README."""
    rows = []
    for name, title in titles.items():
        line = lines[name]
        metrics = line.figures
        rows.append(
            (title, _format_percents(metrics.accuracy, metrics.ci95), f"{metrics.n_queries:g}",
             f"${metrics.spend_usd:.2f}", _format_difference(line))
        )  # fmt: skip
    head = ("arm", "accuracy, % (95 % interval)", "queries", "spend", "minus direct, points")
    return format_markdown(head, rows)


def _format_row(line: Line, is_reference: bool) -> list[str]:
    metrics = line.figures
    trained = None if metrics.training_set is None else metrics.training_set.wrong_steps
    less = "reference" if is_reference else _format_difference(line)
    return [
        line.title,
        _format_percents(metrics.accuracy, metrics.ci95),
        less,
        "" if line.p_holm is None else f"{line.p_holm:.2g}",
        f"{metrics.n_queries:g}",
        f"{metrics.spend_usd:.2f}",
        _format_mean(metrics.wrong_steps),
        _format_mean(trained),
        _format_spread(line.aurocs),
        ", ".join(f"{domain} {share:.0%}" for domain, share in line.picks.items()),
    ]


def _format_spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    ends = f"{min(values):.2f} to {max(values):.2f}"
    return f"{sum(values) / len(values):.2f} ({ends}, {len(values)} checks)"


def _format_difference(line: Line) -> str:
    return "" if line.less is None else _format_points(line.less)


def _format_points(estimate: Estimate) -> str:
    mean, low, high = (
        f"{100 * value:+.1f}" for value in (estimate.mean, estimate.low, estimate.high)
    )
    return f"{mean} ({low} to {high})"


def _format_mean(estimate: MeanEstimate | None) -> str:
    if estimate is None:
        return ""
    return _format_percents(estimate.mean, (min(1.0, max(0.0, end)) for end in estimate.ci95))


def _format_percents(mean: float, ends: Iterable[float]) -> str:
    low, high = ends
    return f"{100 * mean:.1f} ({100 * low:.1f} to {100 * high:.1f})"
