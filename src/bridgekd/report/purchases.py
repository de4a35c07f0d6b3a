"""What was purchased, and which rationales were dropped."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from bridgekd.io.artifact_store import Artifact
from bridgekd.io.read_pool import read_pool
from bridgekd.io.row_files import read_column, read_rows
from bridgekd.records import Completion, Rationale
from bridgekd.report.report_data import DroppedRationales, PurchaseSummary
from bridgekd.stages.arm_results import find_budget, find_seed
from bridgekd.stages.select_questions import SelectSettings
from bridgekd.stages.stats import PurchaseStats
from bridgekd.throughput import WorkKind


def collect_purchases(
    ancestors: Mapping[str, Artifact], has_variants: bool = False
) -> list[PurchaseSummary]:
    """Return every purchase among `ancestors`, those without a pool (the evaluation of the teacher)
    last. With `has_variants` the titles have budget and seed.
    """
    paid = [a for a in ancestors.values() if a.manifest.kind is WorkKind.PAID]
    purchases = [_summarize_purchase(a, ancestors, has_variants) for a in paid]
    return sorted(purchases, key=lambda p: (p.is_eval, make_natural_key(p.title)))


def _summarize_purchase(
    artifact: Artifact, ancestors: Mapping[str, Artifact], has_variants: bool
) -> PurchaseSummary:
    stats = artifact.read_stats(PurchaseStats)
    is_eval = not artifact.get_inputs("ranking")
    title = (
        artifact.manifest.title if is_eval else describe_selection(artifact.get_input("ranking"))
    )
    if has_variants and not is_eval:
        title += f", {find_budget([artifact])}, seed {find_seed([artifact.get_input('pool')])}"
    checks = [a for a in ancestors.values() if artifact in a.get_inputs("completions")]
    reasons = dict(_read_reasons(checks[0])) if checks else {}
    kept = {id for id, reason in reasons.items() if not reason}
    rows = [] if is_eval else read_rows(artifact.path / "completions.parquet", Completion)
    return PurchaseSummary(
        title=title,
        n_queries=stats.n_queries,
        spend_usd=stats.spend_microusd / 1e6,
        stop_reason=stats.stop_reason,
        n_kept=len(kept),
        dropped=dict(_count_reasons(reasons.values()).most_common()) if checks else None,
        kept_usd=sum(c.cost_microusd for c in rows if c.id in kept) / 1e6,
        is_eval=is_eval,
    )


def describe_selection(ranking: Artifact) -> str:
    """Return how the questions of a ranking were selected."""
    return f"Selected by {ranking.read_settings(SelectSettings).strategy.name}"


def make_natural_key(text: str) -> list[tuple[bool, int, str]]:
    """Return a sort key that puts 5 % before 10 %."""
    parts = re.findall(r"\d+|\D+", text)
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]


def collect_dropped(ancestors: Mapping[str, Artifact]) -> list[DroppedRationales]:
    """Return, for every stage that filters rationales, each reason with its first rationale."""
    dropped: list[DroppedRationales] = []
    for artifact in ancestors.values():
        pools = artifact.get_inputs("pool")
        if pools and (artifact.path / "rationales.parquet").is_file():
            title = artifact.manifest.title
            for purchase in artifact.get_inputs("completions"):
                title += f" ({describe_selection(purchase.get_input('ranking'))})"
            dropped += _collect_reasons(artifact, pools[0], title)
    return dropped


def _collect_reasons(artifact: Artifact, pool: Artifact, title: str) -> Iterator[DroppedRationales]:
    reasons = _read_reasons(artifact)
    counts = _count_reasons(reason for _, reason in reasons)
    if not counts:
        return
    rows = read_rows(artifact.path / "rationales.parquet", Rationale)
    questions = {e.id: e.question for e in read_pool(pool)}
    for reason, n in counts.most_common():
        first = next(r for r in rows if _shorten_reason(r.reason) == reason)
        yield DroppedRationales(
            title, reason, n, len(reasons), questions[first.id], first.text, first.reason
        )


def _read_reasons(artifact: Artifact) -> list[tuple[str, str]]:
    """(id, the reason why it was dropped) of every rationale; the reason of a kept one is empty."""
    file = artifact.path / "rationales.parquet"
    ids, reasons = (read_column(file, Rationale, name) for name in ("id", "reason"))
    return list(zip(ids, reasons, strict=True))


def _count_reasons(reasons: Iterable[str]) -> Counter[str]:
    return Counter(_shorten_reason(reason) for reason in reasons if reason)


def _shorten_reason(reason: str) -> str:
    return reason.partition(":")[0]
