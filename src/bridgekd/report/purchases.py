"""What a run purchased, and which rationales its filters dropped."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from bridgekd.io.artifact_store import Artifact
from bridgekd.io.read_pool import read_pool
from bridgekd.io.row_files import read_column, read_rows
from bridgekd.records import Completion, Rationale
from bridgekd.report.report_data import DroppedRationales, PurchaseSummary
from bridgekd.selection.strategies import STRATEGIES
from bridgekd.stages.arm_results import find_budget, find_seed
from bridgekd.stages.query_teacher import QueryTeacherSettings
from bridgekd.stages.select_questions import SelectSettings
from bridgekd.stages.stats import PurchaseStats
from bridgekd.throughput import WorkKind

_STOP_REASONS = {
    "queries": "query limit",
    "usd": "dollar limit",
    "tokens": "token limit",
    "accepted": "limit of accepted rationales",
    "pool": "no questions left",
}


def gather_purchases(
    ancestors: Mapping[str, Artifact], has_variants: bool = False
) -> list[PurchaseSummary]:
    """Return every purchase among `ancestors`; the evaluation of the teacher is the last one.

    With `has_variants`, the titles contain the budget and the seed.
    """
    paid = [a for a in ancestors.values() if a.manifest.kind is WorkKind.PAID]
    purchases = [_summarize_purchase(a, ancestors, has_variants) for a in paid]
    return sorted(purchases, key=lambda p: (p.is_eval, make_natural_key(p.title)))


def _summarize_purchase(
    artifact: Artifact, ancestors: Mapping[str, Artifact], has_variants: bool
) -> PurchaseSummary:
    stats = artifact.read_stats(PurchaseStats)
    if is_eval := not artifact.get_inputs("ranking"):
        title, rows = artifact.manifest.title, []
    else:
        title = describe_selection(artifact.get_input("ranking"))
        rows = read_rows(artifact.path / "completions.parquet", Completion)
        n_samples = artifact.read_settings(QueryTeacherSettings).n_samples
        title += f", {n_samples} samples per question" if n_samples > 1 else ""
        if has_variants:
            title += f", {find_budget([artifact])}, seed {find_seed([artifact.get_input('pool')])}"
    checks = [a for a in ancestors.values() if artifact in a.get_inputs("completions")]
    reasons = _read_reasons(checks[0]) if checks else []  # one for each of the rows
    return PurchaseSummary(
        title=title,
        n_queries=stats.n_queries,
        spend_usd=stats.spend_microusd / 1e6,
        stop_reason=_STOP_REASONS.get(stats.stop_reason, stats.stop_reason),
        n_kept=reasons.count(""),
        dropped=dict(_count_reasons(reasons).most_common()) if checks else None,
        kept_usd=sum(c.cost_microusd for c, r in zip(rows, reasons, strict=False) if not r) / 1e6,
        is_eval=is_eval,
        n_without_answer=stats.n_without_answer,
        n_at_reserve=stats.n_at_reserve,
    )


def describe_selection(ranking: Artifact) -> str:
    """Return how the questions of a ranking were selected."""
    strategy = ranking.read_settings(SelectSettings).strategy
    # The code of a strategy outside bridgekd may not be loaded in this process.
    title = STRATEGIES.load(strategy).title if strategy.content is None else strategy.name
    return f"Selection: {title}"


def make_natural_key(text: str) -> list[tuple[bool, int, str]]:
    """Return a sort key that puts 5 % before 10 %."""
    parts = re.findall(r"\d+|\D+", text)
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]


def collect_dropped(ancestors: Mapping[str, Artifact]) -> Iterator[DroppedRationales]:
    """Yield each reason of every stage that filters rationales, with its first rationale."""
    for artifact in ancestors.values():
        pools = artifact.get_inputs("pool")
        if pools and (artifact.path / "rationales.parquet").is_file():
            title = artifact.manifest.title
            for purchase in artifact.get_inputs("completions"):
                title += f" ({describe_selection(purchase.get_input('ranking'))})"
            yield from _collect_reasons(artifact, pools[0], title)


def _collect_reasons(artifact: Artifact, pool: Artifact, title: str) -> Iterator[DroppedRationales]:
    reasons = _read_reasons(artifact)
    counts = _count_reasons(reasons)
    if not counts:
        return
    rows = read_rows(artifact.path / "rationales.parquet", Rationale)
    questions = {e.id: e.question for e in read_pool(pool)}
    for reason, n in counts.most_common():
        first = next(r for r in rows if _shorten_reason(r.reason) == reason)
        yield DroppedRationales(
            title, reason, n, len(reasons), questions[first.id], first.text, first.reason
        )


def _read_reasons(artifact: Artifact) -> list[str]:
    """Return the reason of every rationale; that of a kept rationale is empty."""
    return list(read_column(artifact.path / "rationales.parquet", Rationale, "reason"))


def _count_reasons(reasons: Iterable[str]) -> Counter[str]:
    return Counter(_shorten_reason(reason) for reason in reasons if reason)


def _shorten_reason(reason: str) -> str:
    return reason.partition(":")[0]
