"""`ReportData` as one self-contained HTML page and as Markdown with the same tables.

The page loads no script, font or image from another address.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bridgekd.report import detail_tables, result_tables
from bridgekd.report.embedding_plot import compute_layout, get_color
from bridgekd.report.report_data import ReportData
from bridgekd.report.tables import Table, escape_cell, format_percent, render_markdown


@dataclass(frozen=True, slots=True)
class ReportSection:
    """A section: text, then the template with the name of its `anchor` if it has one, then tables.

    `anchor` is the id of the section on the page.
    """

    title: str
    anchor: str
    text: str
    tables: tuple[Table, ...]
    has_template: bool


def render_report(data: ReportData) -> tuple[str, str]:
    """Return the page as HTML and as Markdown."""
    sections = list(build_sections(data))
    page = make_environment().get_template("page.html").render(data=data, sections=sections)
    return page, _render_markdown(data, sections)


def make_environment() -> Environment:
    """Return the environment of the HTML templates."""
    environment = Environment(
        loader=PackageLoader("bridgekd.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "color": get_color,
        "keep_units": keep_units,
        "layout": compute_layout,
        "percent": format_percent,
        "wrap_interval": wrap_interval,
    }
    return environment


def wrap_interval(text: str) -> Markup:
    """Return a number and its interval as HTML that has no line break within either of them."""
    figure, bracket, interval = text.partition(" (")
    if not bracket:
        return Markup('<span class="nowrap">{}</span>').format(figure)
    html = '<span class="nowrap">{}</span> <span class="nowrap soft">({}</span>'
    return Markup(html).format(figure, interval)


def keep_units(text: str) -> str:
    """Return `text` with no-break spaces around "=" and before "%"."""
    return text.replace(" %", "\u00a0%").replace(" = ", "\u00a0=\u00a0")


def build_sections(data: ReportData) -> Iterator[ReportSection]:
    """Yield the sections that have content, in the order of the page."""
    first = " The first seed and budget are shown." if data.has_variants else ""
    yield _build_section(
        "Accuracy on the test questions",
        "accuracy",
        "",
        result_tables.build_arm_table(data),
        result_tables.build_difference_table(data),
        has_template=True,
    )
    if data.purchases:
        table = detail_tables.build_purchase_table(data)
        yield _build_section("Spend", "spend", "", table, has_template=True)
    if data.embedding_maps:
        text = "Each point is a question of the pool. Near points are similar questions."
        yield _build_section("Selected questions", "selection", text + first, has_template=True)
    if table := detail_tables.build_selection_table(data):
        title = "Selected questions against random selection"
        yield _build_section(title, "representativeness", first, table)
    if data.trainings:
        text = (
            "Each plot has the training loss at the top. Below it are the evaluations on the "
            "validation split; the weights of the filled point were kept. A training loss that "
            "falls while the validation accuracy falls is a sign of overfitting."
        )
        yield _build_section("Training", "training", text, has_template=True)
    if domains := result_tables.build_accuracy_by_domain(data):
        yield _build_section("Accuracy by domain", "domains", "", domains)
    if answers := result_tables.build_answer_table(data):
        cut_off = detail_tables.build_cut_off_table(data)
        passes = result_tables.build_pass_table(data)
        memorized = result_tables.build_memorization_table(data)
        yield _build_section(
            "How the models answer", "answers", "", answers, passes, memorized, cut_off
        )
    text = data.examples.rule + first
    yield _build_section("Example answers", "examples", text, has_template=True)
    yield _build_section(
        "Dropped rationales",
        "dropped",
        ("" if data.dropped else "No rationale was dropped.") + first,
        detail_tables.build_dropped_table(data),
        detail_tables.build_calibration_table(data),
    )
    yield _build_section(
        "Test questions in the training texts",
        "contamination",
        data.contamination.sentence,
        detail_tables.build_contamination_table(data),
        detail_tables.build_overlap_table(data),
    )
    text = (
        "A run uses the artifacts in the store again and does not pay again for answers in the "
        "ledger. To repeat everything, use an empty store and an empty ledger."
    )
    yield _build_section("How to reproduce this report", "reproduce", text, has_template=True)


def _build_section(
    title: str, anchor: str, text: str, *tables: Table | None, has_template: bool = False
) -> ReportSection:
    kept = tuple(table for table in tables if table is not None)
    return ReportSection(title, anchor, text.strip(), kept, has_template)


def _render_markdown(data: ReportData, sections: list[ReportSection]) -> str:
    parts = [f"# {escape_cell(data.name)}", escape_cell(data.headline)]
    for section in sections:
        is_reproduce = section.anchor == "reproduce"
        if section.has_template and not section.tables and not is_reproduce:
            continue  # the section has only pictures
        parts.append(f"## {section.title}")
        parts += [f"    {data.command}"] if is_reproduce else []
        parts += [escape_cell(section.text)] if section.text else []
        parts += [render_markdown(table) for table in section.tables]
    return "\n\n".join([*parts, f"Made with {data.libraries}."]) + "\n"
