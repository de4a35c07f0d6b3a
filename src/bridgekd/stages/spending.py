"""Where the money went, and what of it was dropped and why."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from bridgekd.edges.rows import read_column, read_rows
from bridgekd.edges.store import Artifact
from bridgekd.records import Completion, Example, Rationale
from bridgekd.report.evidence import Dropped, Purchase
from bridgekd.stages.cells import budget_of
from bridgekd.stages.mapping import inputs_of
from bridgekd.stages.naming import STAGES, natural
from bridgekd.stages.pool import read_pool


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
    inputs, facts = inputs_of(artifact, behind), artifact.facts
    of = domains.of(inputs["load_pool"])
    rows = read_rows(artifact.path / "completions.parquet", Completion)
    n_bought = Counter(of[c.id] for c in rows)
    checked = [a for a in behind.values() if _is_child(a, "check", artifact)]
    kept: set[str] = set()
    reasons: Counter[str] = Counter()
    if checked:
        told = _reasons(checked[0])
        kept = {id for id, reason in told if not reason}
        reasons.update(reason.partition(":")[0] for _, reason in told if reason)
    return Purchase(
        title=_named(artifact, inputs, several),
        n_queries=facts["n_queries"],
        spend_usd=facts["spend_microusd"] / 1e6,
        ended_by=facts["ended_by"],
        n_kept=len(kept),
        dropped=dict(reasons.most_common()),
        bought_by_domain={d: (n_bought[d], n) for d, n in sorted(Counter(of.values()).items())},
        usd_kept=sum(c.cost_microusd for c in rows if c.id in kept) / 1e6,
    )


def _measuring(artifact: Artifact) -> Purchase:
    facts = artifact.facts
    return Purchase(
        title="The teacher on test questions",
        n_queries=facts["n_queries"],
        spend_usd=facts["spend_microusd"] / 1e6,
        ended_by=facts["ended_by"],
        n_kept=0,
        dropped={},
        bought_by_domain={},
        measures=True,
    )


def _named(artifact: Artifact, inputs: Mapping[str, Artifact], several: bool) -> str:
    title = f"Chosen by: {inputs['select'].manifest['settings']['strategy']['name']}"
    if not several:
        return title
    seed = inputs["load_pool"].manifest["settings"]["seed"]
    return f"{title}, {budget_of([artifact])}, seed {seed}"


def _reasons(checked: Artifact) -> list[tuple[str, str]]:
    """(id, why it was dropped; empty if kept) of every rationale."""
    file = checked.path / "rationales.parquet"
    ids, reasons = (read_column(file, Rationale, name) for name in ("id", "reason"))
    return list(zip(ids, reasons, strict=True))


def dropped_of(behind: Mapping[str, Artifact]) -> list[Dropped]:
    """Of every stage that lets rationales through: each reason to drop one, with the first row."""
    found = []
    for artifact in behind.values():
        if artifact.stage in STAGES and (artifact.path / "rationales.parquet").is_file():
            inputs = inputs_of(artifact, behind)
            title = STAGES[artifact.stage]
            if artifact.stage == "check":
                chosen = inputs_of(inputs["query_teacher"], behind)["select"].manifest["settings"]
                title += f" (chosen by: {chosen['strategy']['name']})"
            found += list(_dropped(artifact, inputs["load_pool"], title))
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


def _is_child(artifact: Artifact, stage: str, parent: Artifact) -> bool:
    inputs = artifact.manifest["inputs"]
    return artifact.stage == stage and any(r["folder"] == parent.path.name for r in inputs)
