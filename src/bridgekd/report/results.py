"""The arms' figures as tables."""

import re

from bridgekd.core.crossed import Estimate
from bridgekd.report.story import Story
from bridgekd.report.tables import (
    Table,
    numbers,
    p_value,
    percent,
    percents,
    points,
    ratio,
    usd,
)

MINE = "bridge"


def arms(story: Story) -> Table:
    """Every arm with its interval and what it took."""
    several = any(arm.n_seeds > 1 for arm in story.arms)
    rows = tuple(
        (
            arm.title,
            percent(arm.accuracy),
            f"{percent(arm.low)} to {percent(arm.high)}",
            f"{arm.n_test}",
            *([f"{arm.n_seeds}"] if several else []),
            f"{arm.n_queries:g}",
            usd(arm.spend_usd),
            f"{arm.seconds:.0f}",
        )
        for arm in story.arms
    )
    columns = ["Arm", "Accuracy", "95 % interval", "Test questions"]
    columns += ["Seeds"] * several + ["Queries", "Spend", "Seconds"]
    interval = "over seeds and questions; figures are means over seeds" if several else "Wilson's"
    return Table(
        "Every arm on the test questions",
        tuple(columns),
        rows,
        "l" + "r" * (len(columns) - 1),
        note=f"Intervals are {interval}. Chance is {percent(story.chance[0])}: {story.chance[1]}. "
        "Queries and dollars are what making that model alone "
        "took; seconds are all stages behind it.",
        mine=_mine(story),
    )


def versus(story: Story) -> Table | None:
    """Every trained student against direct distillation."""
    if not story.versus:
        return None
    rows = tuple(
        (
            row.title,
            row.reference,
            points(Estimate(100 * row.difference, 100 * row.low, 100 * row.high)),
            p_value(row.p_holm),
        )
        for row in story.versus
    )
    return Table(
        "Against direct distillation at the same budget, in points",
        ("Arm", "Against", "Difference (95 % interval)", "p (Holm)"),
        rows,
        "llrr",
        note=f"Tested by {story.tests}; p is corrected for the {len(rows)} "
        f"comparison{'s' * (len(rows) > 1)} of this table (Holm).",
    )


def gains(story: Story) -> Table | None:
    """What each trained student gained, and what a point of it took."""
    trained = [(arm.title, arm.gain) for arm in story.arms if arm.gain is not None]
    if not trained:
        return None
    rows = tuple(
        (
            title,
            points(gain.points),
            "none told" if gain.gap is None else ratio(gain.gap),
            numbers(gain.usd, 4) or gain.verdict,
            numbers(gain.queries, 2) or gain.verdict,
        )
        for title, gain in trained
    )
    return Table(
        "What a point of accuracy took",
        ("Arm", "Points gained", "Share of the gap to the teacher", "Dollars a point",
         "Queries a point"),
        rows,
        "lrrrr",
        note=f"All with 95 % intervals. Gains are over: {trained[0][1].over}. The gap is told on "
        "the questions that the teacher was asked.",
    )  # fmt: skip


def seeds(story: Story) -> Table | None:
    """Every single run of a comparison over seeds."""
    several = [arm for arm in story.arms if arm.n_seeds > 1]
    if not several:
        return None
    rows = tuple(
        (arm.title, f"{row.seed}", percents(row.accuracy), f"{row.n_queries}", usd(row.spend_usd))
        for arm in several
        for row in arm.by_seed
    )
    columns = ("Arm", "Seed", "Accuracy (Wilson's 95 % interval)", "Queries", "Spend")
    return Table("Every seed by itself", columns, rows, "lrrrr", folded=True)


def pairs(story: Story) -> Table | None:
    """Every two arms on the same questions."""
    if not story.pairs:
        return None
    rows = tuple(
        (pair.title, f"{100 * pair.difference:+.1f}", p_value(pair.p), f"{pair.n_test}")
        for pair in story.pairs
    )
    return Table(
        "Arms in pairs, on the same questions, in points",
        ("Pair", "Difference", "p", "Questions"),
        rows,
        "lrrr",
        note="One seed: exact McNemar; several: t over seeds and questions. Not corrected for the "
        "number of pairs.",
        folded=True,
    )


def domains(story: Story) -> Table | None:
    """Accuracy in every domain, where there are several."""
    names = sorted({d for arm in story.arms for d in arm.by_domain})
    if len(names) < 2:
        return None
    rows = tuple(
        (arm.title, *(_asked(arm.by_domain.get(name)) for name in names)) for arm in story.arms
    )
    columns = ("Arm", *(f"{name or 'none'} (n = {story.n_in_domain[name]})" for name in names))
    return Table(
        "Accuracy by domain, with 95 % intervals", columns, rows, "l" + "r" * len(names),
        mine=_mine(story),
    )  # fmt: skip


def steps(story: Story) -> Table | None:
    """Accuracy by how many steps a question takes."""
    groups = {g for arm in story.arms for g in arm.by_steps}
    if len(groups) < 2:
        return None
    names = sorted(groups, key=lambda g: int(re.findall(r"\d+", g)[0]))
    rows = tuple(
        (arm.title, *(_asked(arm.by_steps.get(name)) for name in names)) for arm in story.arms
    )
    return Table(
        "Accuracy by number of steps, with 95 % intervals",
        (
            "Arm",
            *(f"{n} step{'s' * (n != '1')} (n = {story.n_with_steps[n]})" for n in names),
        ),
        rows,
        "l" + "r" * len(names),
        note=_told_by(story),
        mine=_mine(story),
    )


def _told_by(story: Story) -> str:
    if story.steps_told_by == "checker":
        return "The task's step checker says how many steps a question takes."
    who = next((a.title for a in story.arms if a.name.partition("@")[0] == story.steps_told_by), "")
    return (
        "No checker of steps is known for this task. Steps are the lines and sentences of one "
        f"rationale a question, that of: {who}, right or wrong. A long rationale can be a sign of "
        "a hard question or of a lost thread."
    )


def reasoning(story: Story) -> Table:
    """How the arms reason, and what they learnt from."""
    checked = any(arm.reasoning.wrong_steps for arm in story.arms)
    rows = []
    for arm in story.arms:
        how = arm.reasoning
        row = [arm.title, numbers(how.words)]
        row += [percents(how.wrong_steps) or "not told"] if checked else []
        row += [", ".join(f"{n:,}" for n in how.n_learnt) or "none"]
        row += [numbers(how.learnt_words) or "none"]
        row += [percents(how.learnt_wrong) or "none"] if checked else []
        rows.append(tuple(row))
    columns = ["Arm", "Words a rationale"]
    columns += ["Steps wrong or missing"] * checked
    columns += ["Rationales learnt from", "Words in those"]
    columns += ["Steps wrong or missing in those"] * checked
    return Table(
        "How the arms reason on the test questions, and what they learnt from",
        tuple(columns),
        tuple(rows),
        "l" + "r" * (len(columns) - 1),
        note="Means with 95 % intervals. "
        + (
            "A step counts if the task's checker finds it wrong, cannot read it or misses it."
            if checked
            else "No checker of steps is known for this task (evaluate.steps)."
        ),
        mine=_mine(story),
    )


def _asked(figure: Estimate | None) -> str:
    return percents(figure) or "not asked"


def _mine(story: Story) -> tuple[int, ...]:
    return tuple(i for i, arm in enumerate(story.arms) if arm.name.partition("@")[0] == MINE)
