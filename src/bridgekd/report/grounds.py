"""What stands behind the figures as tables: money, trainings, what was dropped or seen before."""

from bridgekd.core.overlap import FEWEST, MOSTLY, RUN
from bridgekd.report.evidence import Purchase, Reliability, Training
from bridgekd.report.pool_map import plain
from bridgekd.report.story import Story
from bridgekd.report.tables import Table, percent, percents, usd


def money(story: Story) -> Table | None:
    """Every purchase and what came of it; the teacher's measuring and the sum below."""
    if not story.purchases:
        return None
    rows = [_bought(p) for p in story.purchases if not p.measures]
    rows += [
        (p.title, f"{p.n_queries}", usd(p.spend_usd), "", "", "", "")
        for p in story.purchases
        if p.measures
    ]
    n = sum(p.n_queries for p in story.purchases)
    spent = sum(p.spend_usd for p in story.purchases)
    rows += [("All together", f"{n}", usd(spent), "", "", "", "")]
    return Table(
        "Every purchase, and what came of it",
        ("Purchase", "Queries", "Spend", "Ended by", "Kept", "Dropped", "Dollars a kept one"),
        tuple(rows),
        "lrrlrlr",
        note="A dropped answer stays paid, so a kept one costs all that was spent. A question that "
        "two purchases ask is charged to both and was paid once; the ledger has what was paid "
        "(bridgekd ledger). Measuring the teacher has a limit of its own, apart from the budget.",
    )


def _bought(p: Purchase) -> tuple[str, ...]:
    dropped = "; ".join(f"{n} {reason}" for reason, n in p.dropped.items()) or "none"
    each = usd(p.spend_usd / p.n_kept) if p.n_kept else "none kept"
    return (
        p.title, f"{p.n_queries}", usd(p.spend_usd), p.ended_by, f"{p.n_kept}", dropped, each
    )  # fmt: skip


def bought_domains(story: Story) -> Table | None:
    """For each purchase the share of every domain, beside that of the pool."""
    rows = [
        (p.title, *_of_domain(p, domain))
        for p in story.purchases
        if len(p.bought_by_domain) > 1
        for domain in p.bought_by_domain
    ]
    if not rows:
        return None
    return Table(
        "What was bought of each domain",
        ("Purchase", "Domain", "Bought", "In the pool", "Share of what was bought",
         "Share of the pool"),
        tuple(rows),
        "llrrrr",
        folded=True,
    )  # fmt: skip


def _of_domain(p: Purchase, domain: str) -> tuple[str, ...]:
    bought, there = p.bought_by_domain[domain]
    total = sum(n for n, _ in p.bought_by_domain.values())
    pool = sum(n for _, n in p.bought_by_domain.values())
    return (
        domain or "none",
        f"{bought}",
        f"{there}",
        percent(bought / total if total else 0),
        percent(there / pool if pool else 0),
    )


def picks(story: Story) -> list[Table]:
    """For each choice by scores the first picks and why."""
    found = []
    for m in story.maps:
        rows = tuple(
            (
                f"{r.rank + 1}",
                f"{r.score:.3f}",
                f"{r.difficulty:.3f}",
                "not told" if r.distance is None else f"{r.distance:.3f}",
                plain(r.question),
                plain(r.nearest) or "none",
            )
            for r in m.reasons
        )
        if rows:
            rule = f"{m.rule}. " if m.rule else ""
            found.append(
                Table(
                    f"{m.title}: the first {len(rows)} picks, and why",
                    ("Place", "Score", "Difficulty", "Distance", "Question",
                     "Nearest earlier pick"),
                    rows,
                    "rrrrww",
                    note=f"{rule}Difficulty is the question's place in the pool, from 0 (easiest) "
                    "to 1 (hardest); distance is how far it lay from the nearest earlier pick, "
                    "from 0 (the same direction) to 1 (the opposite, and for the first pick).",
                    folded=True,
                )
            )  # fmt: skip
    return found


def trainings(story: Story) -> Table | None:
    """Every training in figures."""
    if not story.trainings:
        return None
    return Table(
        "Every training",
        ("Training", "Rows", "Too long", "Updates", "First loss", "Last loss", "Validation",
         "Weights of update", "Seconds"),
        tuple(_trained(t) for t in story.trainings),
        "lrrrrrlrr",
        note="A loss is the mean over the updates since the one logged before. Validation is in "
        "the order of the updates; the best weights were kept, the earliest of equals.",
    )  # fmt: skip


def _trained(t: Training) -> tuple[str, ...]:
    first, last = (f"{t.losses[i][1]:.3f}" if t.losses else "no log" for i in (0, -1))
    return (
        t.title,
        f"{t.n_rows:,}",
        f"{t.n_too_long:,}",
        f"{t.n_updates:,}",
        first,
        last,
        judged(t),
        f"{t.best_update:,}",
        f"{t.seconds:.0f}",
    )


def judged(t: Training) -> str:
    """The validations of a training in words."""
    if not t.validations:
        return "none"
    if t.by_loss:
        return "held-out loss " + ", ".join(f"{value:.3f}" for _, value in t.validations)
    return ", ".join(percent(value) for _, value in t.validations)


def bins(found: Reliability) -> Table:
    """A confidence against gold answers, bin by bin."""
    return Table(
        f"{found.title}: the bins as a table",
        ("Mean confidence", "Share right", "Rationales"),
        tuple((f"{said:.2f}", percent(right), f"{n}") for said, right, n in found.bins),
        "rrr",
        folded=True,
    )


def dropped(story: Story) -> Table | None:
    """Every reason why a rationale was dropped, with its first row."""
    if not story.dropped:
        return None
    rows = tuple(
        (
            d.stage,
            d.reason,
            f"{d.n:,} of {d.n_all:,}",
            plain(d.question),
            plain(d.text) or "(no text)",
            plain(d.said),
        )
        for d in story.dropped
    )
    return Table(
        "What was dropped, and the first of each",
        ("Of", "Reason", "Dropped", "Question", "Rationale", "Said of it"),
        rows,
        "llrwwl",
        note="The row shown is the first of its reason, in the order of asking. Long "
        "texts are cut.",
    )


def seen(story: Story) -> Table | None:
    """How many test questions share words with what was trained on."""
    told = story.contamination
    if not told.rows:
        return None
    rows = tuple(
        (
            row.source,
            f"{row.n_texts:,}",
            _of(row.n_shared, told.n_test),
            _of(row.n_mostly, told.n_test),
            _of(row.n_whole, told.n_test),
        )
        for row in told.rows
    )
    return Table(
        "Test questions that share words with what was trained on",
        ("Compared with", "Texts", f"Share a run of {RUN} words",
         f"{percent(MOSTLY, 0)} of the words or more", "Every word"),
        rows,
        "lrrrr",
        note=f"Case and punctuation do not count. A run is {RUN} words one after another, or the "
        f"whole question where that has {FEWEST} to {RUN - 1}; shorter ones count only where a "
        "whole text has the same words. Data written from templates share many runs without being "
        "the same. What the models read before, and the instruction set, are not looked at.",
    )  # fmt: skip


def apart(story: Story) -> Table | None:
    """The leading arm's accuracy on questions by how much of them was seen."""
    told = story.contamination
    if not told.by_overlap:
        return None
    rows = tuple(
        (name, f"{n:,}", percents(figure) if n else "none asked")
        for name, n, figure in told.by_overlap
    )
    return Table(
        f"{told.title}: accuracy by what was seen of a question",
        ("Test questions", "How many", "Accuracy (95 % interval)"),
        rows,
        "lrr",
    )


def likest(story: Story) -> Table | None:
    """The test questions of which most was trained on."""
    if not story.contamination.worst:
        return None
    rows = tuple(
        (one.source, percent(one.share, 0), plain(one.question), plain(one.text))
        for one in story.contamination.worst
    )
    return Table(
        "The likest: test questions of which most was seen",
        ("Found in", "Words found", "Test question", "A text that holds them"),
        rows,
        "lrww",
        note="The words found may stand in several texts; one of them is shown. Long texts "
        "are cut.",
        folded=True,
    )


def _of(n: int, total: int) -> str:
    return f"{n:,} ({percent(n / total if total else 0)})"


def stages(story: Story) -> Table:
    """Every stage, its folder and its seconds."""
    rows = tuple((r.stage, f"{r.seconds:.1f}", r.folder, r.facts) for r in story.stages)
    return Table(
        "Every stage, its folder in the store and its seconds",
        ("Stage", "Seconds", "Folder", "What it reports"),
        rows,
        "lrlw",
        folded=True,
    )
