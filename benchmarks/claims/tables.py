"""Tables as Markdown, and where they stand in a document."""

from collections.abc import Iterable, Mapping, Sequence

from bridgekd.stats.metrics import MeanEstimate
from claims.experiments import Experiment
from claims.results import Line
from claims.summary import Claim


def as_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A head and rows as Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)


def summary_table(claims: Sequence[Claim], n_seeds: int) -> str:
    """The claims, the papers' figures and ours; one seed says nothing of other trainings. What is
    held to is the direction; whether the size is in the paper's range is for the reader's eye.
    """
    rows = [(c.claim, c.paper, c.here, c.holds) for c in claims]
    holds = "its direction holds" if n_seeds > 1 else "its direction holds for this one training"
    return as_table(("claim", "paper", "here (95 % interval)", holds), rows)


def table(experiment: Experiment, lines: Mapping[str, Line]) -> str:
    """An experiment's lines; columns that none of them fills are left out."""
    against = experiment.against
    head = ("", "accuracy, %", "minus the reference", "p (Holm)", "queries", "$", "wrong steps, %",
            "steps it learnt from wrong, %", "AUROC of the filter", "picks")  # fmt: skip
    rows = [_row(line, title in against) for title, line in lines.items()]
    filled = [any(row[k] for row in rows) for k in range(len(head))]
    kept = [[cell for cell, keep in zip(row, filled, strict=True) if keep] for row in rows]
    return as_table([h for h, keep in zip(head, filled, strict=True) if keep], kept)


def readme_table(lines: Mapping[str, Line], titles: Mapping[str, str]) -> str:
    """The arms of the first experiment for the README."""
    rows = []
    for name, title in titles.items():
        line = lines[name]
        told = line.figures
        rows.append(
            (title, _percents(told.accuracy, told.ci95), f"{told.n_queries:g}",
             f"${told.spend_usd:.2f}", _less(line))
        )  # fmt: skip
    head = ("arm", "accuracy, % (95 % interval)", "queries", "spend", "minus direct, points")
    return as_table(head, rows)


def _row(line: Line, is_reference: bool) -> list[str]:
    told = line.figures
    trained = None if told.training_set is None else told.training_set.wrong_steps
    less = "reference" if is_reference else _less(line)
    return [
        line.title,
        _percents(told.accuracy, told.ci95),
        less,
        "" if line.p_holm is None else f"{line.p_holm:.2g}",
        f"{told.n_queries:g}",
        f"{told.spend_usd:.2f}",
        _figure(told.wrong_steps),
        _figure(trained),
        _spread(line.aurocs),
        ", ".join(f"{domain} {share:.0%}" for domain, share in line.picks.items()),
    ]


def _spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    ends = f"{min(values):.2f} to {max(values):.2f}"
    return f"{sum(values) / len(values):.2f} ({ends}, {len(values)} checks)"


def _less(line: Line) -> str:
    if line.less is None:
        return ""
    mean, low, high = (
        f"{100 * value:+.1f}" for value in (line.less.mean, line.less.low, line.less.high)
    )
    return f"{mean} ({low} to {high})"


def _figure(told: MeanEstimate | None) -> str:
    if told is None:
        return ""
    return _percents(told.mean, (min(1.0, max(0.0, end)) for end in told.ci95))


def _percents(mean: float, ends: Iterable[float]) -> str:
    low, high = ends
    return f"{100 * mean:.1f} ({100 * low:.1f} to {100 * high:.1f})"
