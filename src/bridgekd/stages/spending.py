"""Where the money went, and what of it was dropped and why."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from bridgekd import settings as of
from bridgekd.edges.rows import read_column, read_rows
from bridgekd.edges.store import Artifact
from bridgekd.records import Completion, Example, Rationale
from bridgekd.report.evidence import Dropped, Purchase
from bridgekd.stages.cells import budget_of, seed_of
from bridgekd.stages.naming import natural
from bridgekd.stages.pool import read_pool
from bridgekd.stages.stats import PurchaseStats


@dataclass(frozen=True, slots=True)
class _Domains:
    """The domain of every question of a pool, read once however many purchases were made in it."""

    known: dict[str, dict[str, str]] = field(default_factory=dict)

    def of(self, pool: Artifact) -> Mapping[str, str]:
        if pool.path.name not in self.known:
            file = pool.path / "pool.parquet"
            ids, domains = (read_column(file, Example, name) for name in ("id", "domain"))
            self.known[pool.path.name] = dict(zip(ids, domains, strict=True))
        return self.known[pool.path.name]


def purchases_of(behind: Mapping[str, Artifact], several: bool = False) -> list[Purchase]:
    """Every buying under the budget and what the check let through, then the teacher's measuring.
    With `several` each says its seed and budget.
    """
    domains = _Domains()
    bought = [
        _purchase(a, behind, domains, several)
        for a in behind.values()
        if a.stage == "query_teacher"
    ]
    return [
        *sorted(bought, key=lambda p: natural(p.title)),
        *(_measuring(a) for a in behind.values() if a.stage == "measure_teacher"),
    ]


def _purchase(
    artifact: Artifact, behind: Mapping[str, Artifact], domains: _Domains, several: bool
) -> Purchase:
    stats, by_id = artifact.read_stats(PurchaseStats), domains.of(artifact.get_input("pool"))
    rows = read_rows(artifact.path / "completions.parquet", Completion)
    n_bought = Counter(by_id[c.id] for c in rows)
    checked = [a for a in behind.values() if artifact in a.get_inputs("completions")]
    kept: set[str] = set()
    reasons: Counter[str] = Counter()
    if checked:
        told = _reasons(checked[0])
        kept = {id for id, reason in told if not reason}
        reasons.update(reason.partition(":")[0] for _, reason in told if reason)
    return Purchase(
        title=_named(artifact, several),
        n_queries=stats.n_queries,
        spend_usd=stats.spend_microusd / 1e6,
        ended_by=stats.ended_by,
        n_kept=len(kept),
        dropped=dict(reasons.most_common()),
        bought_by_domain={d: (n_bought[d], n) for d, n in sorted(Counter(by_id.values()).items())},
        usd_kept=sum(c.cost_microusd for c in rows if c.id in kept) / 1e6,
    )


def _measuring(artifact: Artifact) -> Purchase:
    stats = artifact.read_stats(PurchaseStats)
    return Purchase(
        title=artifact.manifest.title,
        n_queries=stats.n_queries,
        spend_usd=stats.spend_microusd / 1e6,
        ended_by=stats.ended_by,
        n_kept=0,
        dropped={},
        bought_by_domain={},
        measures=True,
    )


def _named(artifact: Artifact, several: bool) -> str:
    title = f"Chosen by: {_strategy(artifact)}"
    if not several:
        return title
    return f"{title}, {budget_of([artifact])}, seed {seed_of([artifact.get_input('pool')])}"


def _strategy(purchase: Artifact) -> str:
    return purchase.get_input("ranking").read_settings(of.Select).strategy.name


def _reasons(checked: Artifact) -> list[tuple[str, str]]:
    """(id, why it was dropped; empty if kept) of every rationale."""
    file = checked.path / "rationales.parquet"
    ids, reasons = (read_column(file, Rationale, name) for name in ("id", "reason"))
    return list(zip(ids, reasons, strict=True))


def dropped_of(behind: Mapping[str, Artifact]) -> list[Dropped]:
    """Of every stage that lets rationales through: each reason to drop one, with the first row."""
    found = []
    for artifact in behind.values():
        pools = artifact.get_inputs("pool")
        if pools and (artifact.path / "rationales.parquet").is_file():
            title = artifact.manifest.title
            for purchase in artifact.get_inputs("completions"):
                title += f" (chosen by: {_strategy(purchase)})"
            found += list(_dropped(artifact, pools[0], title))
    return found


def _dropped(artifact: Artifact, pool: Artifact, title: str) -> Iterator[Dropped]:
    told = _reasons(artifact)
    counts = Counter(reason.partition(":")[0] for _, reason in told if reason)
    if not counts:
        return
    rows = read_rows(artifact.path / "rationales.parquet", Rationale)
    questions = {e.id: e.question for e in read_pool(pool)}
    for reason, n in counts.most_common():
        first = next(r for r in rows if r.reason.partition(":")[0] == reason)
        yield Dropped(title, reason, n, len(told), questions[first.id], first.text, first.reason)
