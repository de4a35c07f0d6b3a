"""The tables of accuracies: every arm, the differences from direct distillation, every domain."""

from bridgekd.report.report_data import ReportData
from bridgekd.report.tables import (
    Table,
    format_interval,
    format_mean_interval,
    format_percent,
    format_percent_interval,
    format_points_interval,
    format_usd,
)
from bridgekd.stats.metrics import GroupAccuracy
from bridgekd.stats.repetition import MAX_COMPRESSION, TAIL_BYTES


def build_arm_table(data: ReportData) -> Table:
    """Return the accuracy of every arm and the resources that it took."""
    has_seeds = any(arm.n_seeds > 1 for arm in data.arms)
    rows = tuple(
        (
            arm.title,
            format_percent(arm.accuracy),
            format_interval(arm.ci95),
            f"{arm.n_test}",
            *([f"{arm.n_seeds}"] if has_seeds else []),
            f"{arm.n_queries:g}",
            format_usd(arm.spend_usd),
            f"{arm.seconds:.0f}",
        )
        for arm in data.arms
    )
    seeds = ["Seeds"] if has_seeds else []
    columns = ("Arm", "Accuracy", "95 % interval", "Test questions", *seeds)
    columns += ("Teacher queries", "Spend", "Seconds")
    interval = "cover seeds and questions" if has_seeds else "are Wilson intervals"
    chance = data.metrics.chance
    return Table(
        "All arms on the test questions",
        columns,
        rows,
        "l" + "r" * (len(columns) - 1),
        note=f"An arm is one model of the comparison. The 95 % intervals {interval}. Chance "
        f"accuracy is {format_percent(chance.accuracy)} ({chance.rule}). Teacher queries, spend "
        f"and seconds are{' means over seeds of' * has_seeds} the total for this arm alone: work "
        "that several arms share counts in each of them.",
        highlighted=_find_highlighted(data),
    )


def build_difference_table(data: ReportData) -> Table | None:
    """Return every trained student minus direct distillation; None without such a comparison."""
    differences = data.metrics.vs_reference
    if not differences:
        return None
    arms = data.metrics.arms
    rows = tuple(
        (
            arms[row.arm].title,
            arms[row.reference].title,
            format_points_interval(row.difference, row.ci95),
            "< 0.0001" if row.p_holm < 1e-4 else f"{row.p_holm:.2g}",
        )
        for row in differences
    )
    tests = " and ".join(sorted({row.test for row in differences}))
    return Table(
        "Difference from direct distillation at the same budget, in percentage points",
        ("Arm", "Minus", "Difference (95 % interval)", "p (Holm)"),
        rows,
        "llrr",
        note=f"Test: {tests}. The p-values are corrected for {len(rows)} "
        f"comparison{'s' * (len(rows) > 1)} with Holm's method.",
    )


def build_accuracy_by_domain(data: ReportData) -> Table | None:
    """Return the accuracy in every domain; None if the test questions have only one domain."""
    n_by_domain: dict[str, int] = {}
    for arm in data.arms:
        for domain, group in arm.by_domain.items():
            n_by_domain[domain] = max(n_by_domain.get(domain, 0), group.n_test)
    if len(n_by_domain) < 2:
        return None
    names = sorted(n_by_domain)
    return Table(
        "Accuracy by domain, with 95 % intervals",
        ("Arm", *(f"{name or 'no domain'} (n = {n_by_domain[name]})" for name in names)),
        tuple(
            (arm.title, *(_format_group(arm.by_domain.get(name)) for name in names))
            for arm in data.arms
        ),
        "l" + "r" * len(names),
        highlighted=_find_highlighted(data),
    )


def build_answer_table(data: ReportData) -> Table | None:
    """Return the length of every arm's texts and the shares of incomplete ones; None if unknown."""
    arms = [(arm, arm.answers) for arm in data.arms if arm.answers is not None]
    if not arms:
        return None
    return Table(
        "How the models answer the test questions, with 95 % intervals",
        ("Arm", "Tokens of an answer", "Cut off", "No answer found", "Repetitive"),
        tuple(
            (
                arm.title,
                format_mean_interval(answers.tokens),
                *(
                    format_percent_interval(share.mean, share.ci95)
                    for share in (answers.cut_off, answers.without_answer, answers.repetitive)
                ),
            )
            for arm, answers in arms
        ),
        "lrrrr",
        note="Tokens are those of the model's own tokenizer, or those that the teacher billed. Cut "
        "off: the text reached its maximum of tokens before its end. Such a text seldom has an "
        "answer, so the model looks worse than it is. Raise assistant.max_new_tokens or "
        "student.max_new_tokens. No answer found: no rule found an answer in the text. Repetitive: "
        f"the last {TAIL_BYTES:,} bytes compress to less than 1/{MAX_COMPRESSION:.0f} (ours).",
        highlighted=_find_highlighted(data),
    )


def build_pass_table(data: ReportData) -> Table | None:
    """Return pass@k of every student, beside its accuracy; None if no answers were sampled."""
    arms = [(arm, arm.samples) for arm in data.arms if arm.samples is not None]
    if not arms:
        return None
    first = arms[0][1]
    rows = tuple(
        (
            arm.title,
            format_percent_interval(arm.accuracy, arm.ci95),
            *(format_percent_interval(p.mean, p.ci95) for p in samples.pass_at_k.values()),
        )
        for arm, samples in arms
    )
    return Table(
        "Accuracy and pass@k, with 95 % intervals",
        ("Arm", "Accuracy, greedy", *(f"pass@{k}" for k in first.pass_at_k)),
        rows,
        "lr" + "r" * len(first.pass_at_k),
        note="pass@k is the probability that at least one of k answers to a question is correct, "
        f"estimated from {first.n_samples:,} answers at temperature {first.temperature:g}. An arm "
        "that gains accuracy but no pass@k at a large k answers more surely and knows no more. "
        "Questions with few possible answers have a high pass@k by guessing.",
        highlighted=tuple(i for i, (arm, _) in enumerate(arms) if arm.arm == data.lead),
    )


def build_memorization_table(data: ReportData) -> Table | None:
    """Return how many training rationales each student memorized; None if it was not measured."""
    arms = [(arm, arm.memorization) for arm in data.arms if arm.memorization is not None]
    if not arms:
        return None
    return Table(
        "Training rationales that are completed word for word, with 95 % intervals",
        ("Arm", "Rationales", "Student", "Its base model"),
        tuple(
            (
                arm.title,
                f"{figures.n_rationales:,}",
                *(
                    format_percent_interval(share.mean, share.ci95)
                    for share in (figures.student, figures.base_model)
                ),
            )
            for arm, figures in arms
        ),
        "lrrr",
        note="The share of training rationales whose second half a model writes exactly after the "
        "first half. What the base model completes is guessed, not memorized.",
    )


def _format_group(group: GroupAccuracy | None) -> str:
    return "not evaluated" if group is None else format_percent_interval(group.accuracy, group.ci95)


def _find_highlighted(data: ReportData) -> tuple[int, ...]:
    return tuple(i for i, arm in enumerate(data.arms) if arm.arm == data.lead)
