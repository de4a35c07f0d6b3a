"""`ReportData` as one self-contained HTML page and as Markdown: no script, font or image from
another address.
"""

from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from bridgekd.report import embedding_plot, plots, training_plot
from bridgekd.report.report_data import ReportData
from bridgekd.report.sections import ReportSection, build_sections
from bridgekd.report.tables import render_markdown


def render_report(data: ReportData) -> tuple[str, str]:
    """Return the page as HTML and as Markdown."""
    sections = build_sections(data)
    environment = Environment(
        loader=FunctionLoader(_read_template),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["wrap_interval"] = wrap_interval
    page = environment.get_template("page.html").render(
        data=data,
        sections=sections,
        plots=plots,
        training_plot=training_plot,
        embedding_plot=embedding_plot,
    )
    return page, _render_markdown(data, sections)


def wrap_interval(text: str) -> Markup:
    """Return a number and its interval as HTML: a line break may separate them, but not split one
    of them.
    """
    figure, bracket, interval = text.partition(" (")
    if not bracket:
        return Markup('<span class="whole">{}</span>').format(figure)
    whole = '<span class="whole">{}</span> <span class="whole soft">({}</span>'
    return Markup(whole).format(figure, interval)


def _read_template(name: str) -> str:
    return files(__package__).joinpath("templates", name).read_text("utf-8")


def _render_markdown(data: ReportData, sections: list[ReportSection]) -> str:
    parts = [f"# {data.name}", data.headline]
    for section in sections:
        is_picture = section.template and not section.tables
        if is_picture and section.anchor != "reproduce":
            continue
        parts.append(f"## {section.title}")
        parts += [f"    {data.command}"] if section.anchor == "reproduce" else []
        parts += [section.text] if section.text else []
        parts += [render_markdown(table) for table in section.tables]
    return "\n\n".join([*parts, f"Made with {data.libraries}."]) + "\n"
