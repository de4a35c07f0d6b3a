"""A Story as one self-contained HTML page and as Markdown. No script, no font and no picture from
elsewhere.
"""

from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from bridgekd.report import charts
from bridgekd.report.learning import curve, in_words
from bridgekd.report.pool_map import caption, drawn_map, legend_bar, legend_mark, plain
from bridgekd.report.sections import Section, sections
from bridgekd.report.story import Story
from bridgekd.report.tables import percent, render_markdown


def render(story: Story) -> tuple[str, str]:
    """(HTML, Markdown)."""
    told = sections(story)
    environment = Environment(
        loader=FunctionLoader(_template),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "plain": plain,
        "caption": caption,
        "broken": broken,
    }
    environment.globals |= {
        "accuracy_bars": charts.accuracy_bars,
        "against_spend": charts.against_spend,
        "curve": curve,
        "drawn_map": drawn_map,
        "in_words": in_words,
        "legend": charts.legend,
        "legend_bar": legend_bar,
        "legend_mark": legend_mark,
        "money_bars": charts.money_bars,
        "reliability": charts.reliability,
        "series": charts.series,
    }
    page = environment.get_template("page.html").render(s=story, sections=told)
    return page, _markdown(story, told)


def broken(text: str) -> Markup:
    """A figure and its interval, which may go to a line of its own but not be torn apart."""
    figure, opened, interval = text.partition(" (")
    if not opened:
        return Markup('<span class="whole">{}</span>').format(figure)
    whole = '<span class="whole">{}</span> <span class="whole soft">({}</span>'
    return Markup(whole).format(figure, interval)


def _template(name: str) -> str:
    return files(__package__).joinpath("templates", name).read_text("utf-8")


def _markdown(story: Story, told: list[Section]) -> str:
    parts = [f"# {story.name}", story.headline]
    for section in told:
        texts = [section.text] if section.text else []
        texts += [render_markdown(table) for table in section.tables]
        if section.anchor == "again":
            texts.insert(0, f"    {story.command}")
        if texts:
            parts += [f"## {section.title}", *texts]
    return "\n\n".join([*parts, f"Made with {story.libraries}."]) + "\n"
