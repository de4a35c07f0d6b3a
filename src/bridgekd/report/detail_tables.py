"""The tables of details: purchases, dropped rationales, calibration, contamination."""

from collections.abc import Mapping

from bridgekd.report.report_data import PurchaseSummary, ReportData
from bridgekd.report.tables import (
    Table,
    format_percent,
    format_percent_interval,
    format_usd,
    to_single_line,
)
from bridgekd.selection.representativeness import CONFIDENCE, N_DRAWS
from bridgekd.stages.stats import describe_incomplete_answers
from bridgekd.stats.ngram_overlap import MIN_NGRAM_SIZE, MOSTLY_SEEN, NGRAM_SIZE


def build_purchase_table(data: ReportData) -> Table | None:
    """Return every purchase with its result, and the total; None if nothing was purchased."""
    if not data.purchases:
        return None
    n_queries = sum(p.n_queries for p in data.purchases)
    total = PurchaseSummary("Total", n_queries, sum(p.spend_usd for p in data.purchases), "")
    incomplete = describe_incomplete_answers(
        n_queries,
        sum(p.n_without_answer for p in data.purchases),
        sum(p.n_at_reserve for p in data.purchases),
    )
    return Table(
        "All purchases of teacher answers",
        ("Purchase", "Queries", "Spend", "Stopped by", "Kept rationales", "Dropped rationales",
         "Cost per kept rationale"),
        tuple(_build_purchase_row(p) for p in (*data.purchases, total)),
        "lrrlrlr",
        note="Dropped answers cost money too: the cost per kept rationale is the spend divided by "
        "the number of kept rationales. A question that is in two purchases counts in both, but "
        "was paid once. The command bridgekd ledger shows what was paid. The evaluation of the "
        + " ".join(["teacher has its own limit.", *incomplete]),
    )  # fmt: skip


def _build_purchase_row(p: PurchaseSummary) -> tuple[str, ...]:
    amounts = (p.title, f"{p.n_queries}", format_usd(p.spend_usd), p.stop_reason)
    if p.dropped is None:
        return (*amounts, "", "", "")
    cost = format_usd(p.spend_usd / p.n_kept) if p.n_kept else "none kept"
    return (*amounts, f"{p.n_kept}", format_counts(p.dropped), cost)


def format_counts(counts: Mapping[str, int] | None) -> str:
    """
    >>> format_counts({"wrong answer": 1200, "no answer": 3})
    'wrong answer: 1,200, no answer: 3'
    """
    return ", ".join(f"{name}: {n:,}" for name, n in (counts or {}).items()) or "none"


def build_selection_table(data: ReportData) -> Table | None:
    """Return how every selection compares with random ones; None without a figure."""
    rows = tuple(
        (
            title,
            f"{check.n_selected:,} of {check.n_pool:,}",
            figure.name,
            f"{figure.value:.3g}",
            f"{'at most' if figure.low is None else f'{figure.low:.3g} to'} {figure.high:.3g}",
            "outside" if figure.is_outside else "inside",
        )
        for title, check in data.selections
        for figure in check.figures
    )
    if not rows:
        return None
    return Table(
        "The selected questions and the pool",
        ("Selection", "Questions", "Figure", "Selection's value", "95 % of random selections", ""),
        rows,
        "lrlrrl",
        note="Domains and gold answers: total variation between the shares of the selection and of "
        "the pool, 0 to 1. Kernel distance: MMD of the embeddings to those of the pool. "
        "Typicality: mean of 1 / distance to the nearest questions; low values are far questions. "
        f"The limits are from {N_DRAWS} random selections of the same size: {CONFIDENCE:.0%} of "
        "such selections have all their figures inside.",
    )


def build_dropped_table(data: ReportData) -> Table | None:
    """Return every reason why rationales were dropped, with an example; None without any."""
    if not data.dropped:
        return None
    return Table(
        "Dropped rationales: every reason with its first example",
        ("Rationales", "Reason", "Dropped", "Question", "Rationale", "Detail"),
        tuple(
            (
                d.stage,
                d.reason,
                f"{d.n:,} of {d.n_total:,}",
                to_single_line(d.question),
                to_single_line(d.text) or "(no text)",
                to_single_line(d.detail),
            )
            for d in data.dropped
        ),
        "llrwwl",
        note="Long texts are shortened.",
    )


def build_calibration_table(data: ReportData) -> Table | None:
    """Return the calibration of every confidence filter; None if no filter used confidence."""
    if not data.calibrations:
        return None
    return Table(
        "Calibration of the confidence filter",
        ("Rationales", "Number", "ECE", "AUROC"),
        tuple(
            (title, f"{c.n:,}", f"{c.ece:.2f}", "none" if c.auroc is None else f"{c.auroc:.2f}")
            for title, c in data.calibrations
        ),
        "lrrr",
        note="The confidence of each rationale is compared with the correctness of its answer. ECE "
        "is the expected calibration error; 0 is best. AUROC is the probability that a correct "
        "rationale has a higher confidence than a wrong one; 0.5 is chance.",
    )


def build_cut_off_table(data: ReportData) -> Table | None:
    """Return how many texts, other than greedy answers, reached `max_new_tokens` before their end;
    None if none did.
    """
    if not data.cut_off:
        return None
    return Table(
        "Other texts that were cut off at max_new_tokens",
        ("Texts", "Cut off", "Mean tokens of a text"),
        tuple(
            (
                title,
                f"{s.n_cut_off:,} of {s.n_texts:,}",
                f"{s.n_generated_tokens / s.n_texts:.0f}",
            )
            for title, s in data.cut_off
        ),
        "lrr",
        note="Texts of an interrupted attempt are not counted.",
    )


def build_contamination_table(data: ReportData) -> Table | None:
    """Return the number of test questions that share words with the training texts."""
    overlap = data.contamination
    if not overlap.rows:
        return None
    rows = tuple(
        (
            row.source,
            f"{row.n_texts:,}",
            *(
                f"{n:,} ({format_percent(n / max(1, overlap.n_test))})"
                for n in (row.n_shared, row.n_mostly_seen, row.n_fully_seen)
            ),
        )
        for row in overlap.rows
    )
    return Table(
        "Test questions that share words with the training texts",
        ("Compared with", "Texts", f"Share {NGRAM_SIZE} consecutive words",
         f"Share at least {format_percent(MOSTLY_SEEN, 0)} of their words", "Share every word"),
        rows,
        "lrrrr",
        note="A word is shared if it is part of a shared sequence of "
        f"{NGRAM_SIZE} consecutive words. Case and punctuation are ignored. A question of "
        f"{MIN_NGRAM_SIZE} to {NGRAM_SIZE - 1} words must occur completely, and a shorter question "
        "must equal a complete text. Questions that are written from templates share many words "
        "without being equal. The pretraining data of the models and the instruction data are not "
        "compared.",
    )  # fmt: skip


def build_overlap_table(data: ReportData) -> Table | None:
    """Return the leading arm's accuracy by overlap with the training texts."""
    overlap = data.contamination
    if not overlap.by_overlap:
        return None
    rows = tuple(
        (
            row.group,
            f"{row.n_test:,}",
            format_percent_interval(row.accuracy.mean, (row.accuracy.low, row.accuracy.high))
            if row.n_test
            else "no questions",
        )
        for row in overlap.by_overlap
    )
    return Table(
        f"{overlap.title}: accuracy by overlap with the training texts",
        ("Test questions", "Number", "Accuracy (95 % interval)"),
        rows,
        "lrr",
    )
