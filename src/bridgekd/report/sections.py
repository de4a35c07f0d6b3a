"""The sections of the page in order: text, tables, and the template that is above the tables."""

from collections.abc import Iterator
from dataclasses import dataclass

from bridgekd.report import detail_tables, result_tables
from bridgekd.report.report_data import ReportData
from bridgekd.report.tables import Table


@dataclass(frozen=True, slots=True)
class ReportSection:
    """`anchor` is its id on the page. `template` is shown above the tables."""

    title: str
    anchor: str
    text: str = ""
    tables: tuple[Table, ...] = ()
    template: str = ""


def build_sections(data: ReportData) -> list[ReportSection]:
    """Return the sections that this run has something for."""
    return [*_build_result_sections(data), *_build_example_sections(data)]


def _build_result_sections(data: ReportData) -> Iterator[ReportSection]:
    results = _drop_empty(
        result_tables.build_arm_table(data), result_tables.build_difference_table(data)
    )
    yield ReportSection("Accuracy on the test questions", "accuracy", "", results, "accuracy.html")
    if purchases := _drop_empty(detail_tables.build_purchase_table(data)):
        yield ReportSection("Spend", "spend", "", purchases, "spend.html")
    if data.embedding_maps:
        text = "Each point is a question of the pool. Similar questions are near each other."
        yield ReportSection(
            "Selected questions", "selection", text + _describe_variant(data), (), "selection.html"
        )
    if data.trainings:
        yield ReportSection(
            "Training",
            "training",
            "Above: the training loss by update. Below: the result on the validation split at each "
            "evaluation; the weights of the filled point were kept. A training loss that falls "
            "while the validation accuracy falls is overfitting.",
            (),
            "training.html",
        )
    if domains := _drop_empty(result_tables.build_accuracy_by_domain(data)):
        yield ReportSection("Accuracy by domain", "domains", "", domains)


def _build_example_sections(data: ReportData) -> Iterator[ReportSection]:
    variant = _describe_variant(data)
    yield ReportSection(
        "Answers side by side", "examples", data.examples.rule + variant, (), "examples.html"
    )
    dropped = _drop_empty(
        detail_tables.build_dropped_table(data), detail_tables.build_calibration_table(data)
    )
    text = "" if data.dropped else "No rationale was dropped."
    yield ReportSection("Dropped rationales", "dropped", text + variant, dropped)
    contamination = _drop_empty(
        detail_tables.build_contamination_table(data), detail_tables.build_overlap_table(data)
    )
    yield ReportSection(
        "Test questions in the training data",
        "contamination",
        data.contamination.sentence,
        contamination,
    )
    yield ReportSection(
        "How to reproduce this report",
        "reproduce",
        "Artifacts in the store are reused, and answers in the ledger are not paid again. An empty "
        "store and an empty ledger make everything again.",
        (),
        "reproduce.html",
    )


def _describe_variant(data: ReportData) -> str:
    return " The first seed and budget are shown." if data.has_variants else ""


def _drop_empty(*tables: Table | None) -> tuple[Table, ...]:
    return tuple(table for table in tables if table is not None)
