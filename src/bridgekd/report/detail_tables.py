"""The tables behind the figures: purchases, dropped rationales, contamination."""

from bridgekd.report.report_data import PurchaseSummary, ReportData
from bridgekd.report.tables import (
    Table,
    format_percent,
    format_percent_interval,
    format_usd,
    to_single_line,
)
from bridgekd.stats.ngram_overlap import MIN_NGRAM_SIZE, MOSTLY_SEEN, NGRAM_SIZE


def build_purchase_table(data: ReportData) -> Table | None:
    """Return every purchase and what came of it, and the sum; None if nothing was purchased."""
    if not data.purchases:
        return None
    total = PurchaseSummary(
        "Total",
        sum(p.n_queries for p in data.purchases),
        sum(p.spend_usd for p in data.purchases),
        "",
    )
    return Table(
        "All purchases, and what came of them",
        ("Purchase", "Queries", "Spend", "Stop reason", "Kept", "Dropped", "Cost of a kept one"),
        tuple(_build_purchase_row(p) for p in (*data.purchases, total)),
        "lrrlrlr",
        note="A dropped answer still costs money: the cost of a kept one is all spend divided by "
        "the number of kept ones. A question of two purchases is charged to both and was paid "
        "once; see bridgekd ledger for what was paid. The evaluation of the teacher has its own "
        "limit.",
    )


def _build_purchase_row(p: PurchaseSummary) -> tuple[str, ...]:
    amounts = (p.title, f"{p.n_queries}", format_usd(p.spend_usd), p.stop_reason)
    if p.dropped is None:
        return (*amounts, "", "", "")
    dropped = "; ".join(f"{n} {reason}" for reason, n in p.dropped.items()) or "none"
    cost = format_usd(p.spend_usd / p.n_kept) if p.n_kept else "none kept"
    return (*amounts, f"{p.n_kept}", dropped, cost)


def build_dropped_table(data: ReportData) -> Table | None:
    """Return every reason for which rationales were dropped, with its first rationale."""
    if not data.dropped:
        return None
    rows = tuple(
        (
            d.stage,
            d.reason,
            f"{d.n:,} of {d.n_total:,}",
            to_single_line(d.question),
            to_single_line(d.text) or "(no text)",
            to_single_line(d.detail),
        )
        for d in data.dropped
    )
    return Table(
        "Dropped rationales, with the first of each reason",
        ("Rationales", "Reason", "Dropped", "Question", "Rationale", "Detail"),
        rows,
        "llrwwl",
        note="Long texts are cut.",
    )


def build_calibration_table(data: ReportData) -> Table | None:
    """Return how well the confidences of every filter agree with the gold answers."""
    if not data.calibrations:
        return None
    rows = tuple(
        (c.title, f"{c.n:,}", f"{c.ece:.2f}", "none" if c.auroc is None else f"{c.auroc:.2f}")
        for c in data.calibrations
    )
    return Table(
        "Confidence of the filter, compared with the gold answers",
        ("Rationales", "Number", "ECE", "AUROC"),
        rows,
        "lrrr",
        note="ECE is the expected calibration error. AUROC is the probability that a correct "
        "rationale has a higher confidence than a wrong one; 0.5 is chance.",
    )


def build_contamination_table(data: ReportData) -> Table | None:
    """Return how many test questions share words with what was trained on."""
    found = data.contamination
    if not found.rows:
        return None
    rows = tuple(
        (
            row.source,
            f"{row.n_texts:,}",
            *(
                f"{n:,} ({format_percent(n / max(1, found.n_test))})"
                for n in (row.n_shared, row.n_mostly_seen, row.n_fully_seen)
            ),
        )
        for row in found.rows
    )
    return Table(
        "Test questions that share words with the training data",
        ("Compared with", "Texts", f"Share {NGRAM_SIZE} words in a row",
         f"{format_percent(MOSTLY_SEEN, 0)} of the words or more", "Every word"),
        rows,
        "lrrrr",
        note=f"Case and punctuation are ignored. A question of {MIN_NGRAM_SIZE} to "
        f"{NGRAM_SIZE - 1} words must be found as a whole, a shorter one must equal a whole text. "
        "Data written from templates share many words without being equal. The pretraining data of "
        "the models and the instruction data are not compared.",
    )  # fmt: skip


def build_overlap_table(data: ReportData) -> Table | None:
    """Return the leading arm's accuracy by how much of a question was in the training data."""
    found = data.contamination
    if not found.by_overlap:
        return None
    rows = tuple(
        (
            row.group,
            f"{row.n_test:,}",
            format_percent_interval(row.accuracy.mean, (row.accuracy.low, row.accuracy.high))
            if row.n_test
            else "no question",
        )
        for row in found.by_overlap
    )
    return Table(
        f"{found.title}: accuracy by overlap with the training data",
        ("Test questions", "Number", "Accuracy (95 % interval)"),
        rows,
        "lrr",
    )
