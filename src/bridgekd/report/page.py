"""A Story as one self-contained HTML page and as Markdown. No script, no font and no picture from
elsewhere.
"""

from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from bridgekd.report.plots import accuracy_bars, against_spend, reliability
from bridgekd.report.pool_map import caption, drawn_map, legend_bar, legend_mark, plain
from bridgekd.report.story import Against, ArmRow, Story


def render(story: Story) -> tuple[str, str]:
    """(HTML, Markdown)."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["percent"] = lambda share: f"{share:.1%}".replace("%", " %")
    environment.filters["usd"] = lambda amount: f"${amount:,.4f}"
    environment.filters |= {
        "plain": plain,
        "drawn_map": drawn_map,
        "caption": caption,
        "reliability": reliability,
    }
    environment.globals |= {"legend_bar": legend_bar, "legend_mark": legend_mark}
    template = environment.from_string(files(__package__).joinpath("template.html").read_text())
    n_budgets = len({arm.name for arm in story.arms if "@" in arm.name})
    spend = against_spend(story.arms) if n_budgets else ""
    page = template.render(s=story, bars=accuracy_bars(story.arms), spend=spend)
    return page, _markdown(story)


def _markdown(story: Story) -> str:
    lines = [f"# {story.name}", "", story.headline, ""]
    lines += ["| arm | accuracy | 95 % interval | n | queries | spend | seconds |"]
    lines += ["|---|---|---|---|---|---|---|", *(_markdown_row(arm) for arm in story.arms), ""]
    if story.versus:
        lines += ["| arm | less | difference | 95 % interval | p (Holm) |", "|---|---|---|---|---|"]
        lines += [*map(_markdown_against, story.versus), ""]
    lines += ["| pair | difference | p | n |", "|---|---|---|---|"]
    lines += [f"| {pair} | {d:+.1%} | {p:.2g} | {n} |" for pair, d, p, n in story.pairs]
    return "\n".join([*lines, "", story.contamination, ""])


def _markdown_row(arm: ArmRow) -> str:
    return (
        f"| {arm.title} | {arm.accuracy:.1%} | {arm.low:.1%} to {arm.high:.1%} | {arm.n_test} "
        f"| {arm.n_queries:g} | ${arm.spend_usd:.4f} | {arm.seconds:.0f} |"
    )


def _markdown_against(row: Against) -> str:
    return (
        f"| {row.title} | {row.reference} | {row.difference:+.1%} | {row.low:+.1%} to "
        f"{row.high:+.1%} | {row.p_holm:.2g} |"
    )
