"""What is asked of the sandbox, beside what the papers say. World, base models and settings are the
demo's, fixed before; a seed sets the validation split, all draws and all trainings.
"""

from dataclasses import dataclass

from claims.jobs import SHIFTS, Job

STRATEGIES = ("bridge_greedy", "random", "hardest", "diverse", "bridge_static", "medoids", "deita",
              "facility_location", "domains")  # fmt: skip
BUDGETS = ("0.1%", "1%", "5%", "10%", "20%")
WRONG = (0.1, 0.4)
KEEP_ALL = "check.filter=all"  # nothing but the assistant's filter sees whether an answer is right
NO_FILTER = "method={name: ta_in_the_loop, filter_by_confidence: false}"
MOST_CONFIDENT = "confidence.keep_fraction=80%"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: a model of a job."""

    title: str
    job: Job
    model: str  # as the method names it


@dataclass(frozen=True, slots=True)
class Experiment:
    """A table: its rows, and those that the rows below them are held against.

    margin: for an experiment with one reference that is analyzed once, after its last seed: by how
    much of the accuracy an arm may be below it.
    """

    title: str
    asks: str
    rows: tuple[Row, ...]
    against: tuple[str, ...]  # a row is held against the last of these that stands above it
    picks: bool = False  # whether the table tells what was bought by domain
    margin: float | None = None

    @property
    def jobs(self) -> list[Job]:
        """What has to be carried out for it."""
        return [row.job for row in self.rows]

    def reference(self, row: Row) -> str | None:
        """The title of the row that `row` is held against; None for a reference itself."""
        if row.title in self.against:
            return None
        above = self.rows[: self.rows.index(row)]
        return next((r.title for r in reversed(above) if r.title in self.against), None)


def _set_budget(share: str) -> tuple[str, ...]:
    return (f"budget.queries={share}",)


AT_5 = _set_budget("5%")


def _build_row_at_5(method: str, title: str, model: str = "") -> Row:
    return Row(title, Job(method, AT_5), model or title)


_METHODS = Experiment(
    "Every arm at 5 %",
    "BRIDGE's gain over direct distillation at the same budget and over all of it; its ablations",
    (
        Row("teacher", Job("teacher"), "teacher"),
        _build_row_at_5("direct", "student_base"),
        _build_row_at_5("direct", "student_instructed"),
        _build_row_at_5("direct", "direct"),
        _build_row_at_5("bridge", "bridge"),
        _build_row_at_5("bridge_random", "random", "bridge_random"),
        _build_row_at_5("bridge_hardest", "hardest", "bridge_hardest"),
        _build_row_at_5("bridge_diverse", "diverse", "bridge_diverse"),
        _build_row_at_5("bridge_no_instruct", "no_instruct", "bridge_no_instruct"),
        Row("no_warm_up", Job("bridge", (*AT_5, "assistant.warm_up_size=0")), "bridge"),
        _build_row_at_5("direct_full", "direct_full"),
        _build_row_at_5("answers_only", "answers_only"),
        _build_row_at_5("mentor_kd", "mentor_kd"),
        _build_row_at_5("ta_in_the_loop", "ta_in_the_loop"),
    ),
    ("direct",),
)

_ASSISTANTS = Experiment(
    "The assistants at 5 %: chosen against random questions",
    "random choice gives an assistant that writes poor rationales; difficulty alone collapses",
    (
        _build_row_at_5("bridge", "assistant, base model", "assistant_base"),
        _build_row_at_5("bridge", "assistant, warmed up", "assistant_warm"),
        _build_row_at_5("bridge_random", "random picks", "random_assistant"),
        _build_row_at_5("bridge", "bridge picks", "assistant"),
        _build_row_at_5("bridge_hardest", "hardest picks", "hardest_assistant"),
        _build_row_at_5("bridge_diverse", "diverse picks", "diverse_assistant"),
    ),
    ("random picks",),
    picks=True,
)

_SCALING = Experiment(
    "Budget scaling",
    "5 % of the budget beats direct distillation with 100 %; 5 to 10 % is often efficient",
    tuple(
        Row(f"{method} {share}", Job(method, _set_budget(share)), method)
        for share in BUDGETS
        for method in ("direct", "bridge")
    ),
    tuple(f"direct {share}" for share in BUDGETS),
)

_SIZES = Experiment(
    "The assistant's size, all else equal",
    "3B may fail to bridge, 7B is the sweet spot, 14B brings little more",
    tuple(
        Row(f"{size}: {what}", Job("bridge", (*AT_5, *model)), name)
        for what, name in (("assistant", "assistant"), ("student", "bridge"))
        for size, model in (
            ("middle", ()),
            ("small", ("assistant.model=models/assistant-small",)),
            ("large", ("assistant.model=models/assistant-large",)),
        )
    ),
    ("middle: assistant", "middle: student"),
)

_SHIFT = Experiment(
    "Distribution shift: the assistant warmed up on another domain's questions",
    "the check is asked for in the paper's summary; no figure is given",
    (
        Row("warmed up on the pool", Job("assistant", AT_5), "assistant"),
        *(
            Row(f"warmed up on {domain}", Job(f"shifted to {domain}", AT_5), "assistant")
            for domain in SHIFTS
        ),
    ),
    ("warmed up on the pool",),
    picks=True,
)

_NO_GOLD = Experiment(
    "Open question (a): difficulty without gold answers",
    "open in the paper: entropy cannot tell confidently wrong from confidently right",
    tuple(
        Row(
            measure,
            Job("assistant", (*AT_5, f"select.difficulty={measure}")),
            "assistant",
        )
        for measure in ("loss", "entropy", "margin", "n_distinct_answers", "disagreement")
    ),
    ("loss",),
    picks=True,
)

_FILTERS = Experiment(
    "Open question (b): the assistant's false steps, and filters of its rationales",
    "open in the paper: how far false steps travel, and whether filtering helps",
    (
        _build_row_at_5("bridge", "all", "bridge"),
        *(
            Row(keep, Job("bridge", (*AT_5, f"annotate.filter={keep}", *more)), "bridge")
            for keep, more in (
                ("correct", ()),
                ("confident", (MOST_CONFIDENT,)),
                ("self_consistent", ()),
            )
        ),
    ),
    ("all",),
)


def _build_loop_rows(titles: tuple[str, ...]) -> tuple[Row, ...]:
    settings = {
        "direct": ("direct", ()),
        "loop, no filter": ("ta_in_the_loop", (NO_FILTER,)),
        "loop, P(True)": ("ta_in_the_loop", (MOST_CONFIDENT,)),
        "loop, likelihood": ("ta_in_the_loop", (MOST_CONFIDENT, "confidence.measure=likelihood")),
    }
    return tuple(
        Row(
            f"{title}, teacher wrong {wrong:.0%}",
            Job(settings[title][0], (*AT_5, KEEP_ALL, *settings[title][1]), wrong),
            settings[title][0],
        )
        for wrong in WRONG
        for title in titles
    )


_DIRECTS = tuple(f"direct, teacher wrong {wrong:.0%}" for wrong in WRONG)
_IMPERFECT = Experiment(
    "TA-in-the-Loop under imperfect teachers",
    "up to 20.79 % relative gain on average over fine-tuning without signals (arXiv 2406.05322)",
    _build_loop_rows(("direct", "loop, P(True)")),
    _DIRECTS,
    picks=True,
)
_LOOP = Experiment(
    "TA-in-the-Loop under imperfect teachers, with other filters and none",
    _IMPERFECT.asks,
    _build_loop_rows(("direct", "loop, no filter", "loop, P(True)", "loop, likelihood")),
    _DIRECTS,
    picks=True,
)


def _build_strategy_row(strategy: str, share: str) -> Row:
    settings = (*_set_budget(share), f"select.strategy={strategy}")
    return Row(f"{strategy} {share}", Job("assistant", settings), "assistant")


_STRATEGIES = Experiment(
    "The assistant's accuracy by strategy",
    "difficulty and diversity together beat each alone and random choice",
    (
        *(
            _build_strategy_row(s, "5%")
            for s in ("random", *(s for s in STRATEGIES if s != "random"))
        ),
        *(
            _build_strategy_row(s, share)
            for share in ("1%", "3%", "10%")
            for s in ("random", "bridge_greedy", "hardest")
        ),
    ),
    tuple(f"random {share}" for share in ("5%", "1%", "3%", "10%")),
    picks=True,
)

_LATER_SEEDS = Experiment(
    "Selection by the loss on five other seeds",
    "above random selection",
    (
        Row("random", Job("assistant", (*AT_5, "select.strategy=random")), "assistant"),
        *(
            Row(
                strategy,
                Job("assistant", (*AT_5, f"select.strategy={strategy}")),
                "assistant",
            )
            for strategy in ("bridge_greedy", "hardest")
        ),
    ),
    ("random",),
    picks=True,
)

_CANDIDATES = Experiment(
    "Strategies that keep the shares of the pool, on seeds 10 to 29",
    "Not below random selection by more than 2 points (planned before any result)",
    tuple(
        Row(strategy, Job("assistant", (*AT_5, f"select.strategy={strategy}")), "assistant")
        for strategy in ("random", "spread", "swapped", "typical", "herding")
    ),
    ("random",),
    margin=0.02,
)


def _build_student_rows(*arms: tuple[str, Job]) -> tuple[Row, ...]:
    """`bridge_random`, then the arms, whose student is the method's own."""
    reference = ("bridge_random", Job("bridge_random", AT_5))
    return tuple(Row(title, job, job.method) for title, job in (reference, *arms))


def _build_distilled(objective: str) -> tuple[str, Job]:
    return objective, Job("distill", (*AT_5, f"method={{name: distill, objective: {objective}}}"))


def _build_method(name: str) -> tuple[str, Job]:
    return name, Job(name, AT_5)


def _build_student(title: str, *settings: str) -> tuple[str, Job]:
    return title, Job("bridge_random", (*AT_5, *settings))


def _build_redi(alpha: float) -> tuple[str, Job]:
    return f"redi {alpha:g}", Job("redi", (*AT_5, f"method={{name: redi, alpha: {alpha}}}"))


def _build_planned(title: str, rows: tuple[Row, ...]) -> Experiment:
    asks = "Above `bridge_random`, or not below by more than 2 points (planned before any result)"
    return Experiment(f"{title}, seeds 30 to 34", asks, rows, ("bridge_random",), margin=0.02)


def _build_choice(title: str, *settings: str, wrong: float = 0.1) -> Experiment:
    """The strategies that were best among the candidates, in another world."""
    asks = "Not below random selection by more than 2 points (planned before any result)"
    rows = tuple(
        Row(s, Job("assistant", (*settings, f"select.strategy={s}"), wrong), "assistant")
        for s in ("random", "spread", "typical")
    )
    return Experiment(f"{title}, seeds 50 to 59", asks, rows, ("random",), margin=0.02)


CHOICES = {
    "choice_teacher": _build_choice("A teacher that is wrong in 40 %", *AT_5, wrong=0.4),
    "choice_low_budget": _build_choice("2 % of the pool", *_set_budget("2%")),
    "choice_high_budget": _build_choice("10 % of the pool", *_set_budget("10%")),
    "choice_small": _build_choice(
        "A small assistant", *AT_5, "assistant.model=models/assistant-small"
    ),
    "choice_uneven": _build_choice(
        "A pool with domains of 80, 15 and 5 %", *AT_5, "data.train=uneven.jsonl"
    ),
}

SAMPLES = "annotate.n_samples=3"
STUDENTS = {
    "objectives": _build_planned(
        "Objectives beside the assistant's distribution",
        _build_student_rows(
            _build_method("mentor_kd"),
            *map(_build_distilled, ("forward_kl", "reverse_kl", "skew_forward", "adaptive_kl")),
            _build_distilled("{name: jsd, relative: true}"),
            _build_method("taid"),
        ),
    ),
    "rollouts": _build_planned(
        "Texts of the student's own",
        _build_student_rows(
            *map(_build_method, ("gkd", "on_policy", "minillm", "distillm", "opsd"))
        ),
    ),
    "rewards": _build_planned(
        "Rewards for the student's own texts",
        _build_student_rows(*map(_build_method, ("rule_rl", "kdrl", "opd_then_rl"))),
    ),
    "selectors": _build_planned(
        "Which of several rationales the student learns from",
        _build_student_rows(
            _build_student("three samples", SAMPLES),
            *(
                _build_student(name, SAMPLES, f"student.selector={name}")
                for name in ("shortest", "longest", "assistant_like", "confident", "distinct")
            ),
        ),
    ),
    "rows": _build_planned(
        "What the student's rows are",
        _build_student_rows(
            _build_student("rationales: teacher", "student.rationales=teacher"),
            _build_student("rationales: both", "student.rationales=both"),
            _build_student("multi_task", "student.target_format=multi_task"),
            _build_student("chunks", "student.target_format=chunks"),
            *map(_build_redi, (0.0, 0.5, 0.8)),
        ),
    ),
}  # fmt: skip

EXPERIMENTS: dict[str, Experiment] = {
    "methods": _METHODS,
    "assistants": _ASSISTANTS,
    "scaling": _SCALING,
    "sizes": _SIZES,
    "imperfect": _IMPERFECT,
    "filters": _FILTERS,
    "shift": _SHIFT,
    "no_gold": _NO_GOLD,
    "loop": _LOOP,
    "strategies": _STRATEGIES,
    "later_seeds": _LATER_SEEDS,
    "candidates": _CANDIDATES,
    **CHOICES,
    **STUDENTS,
}
CLAIMS = ("methods", "assistants", "scaling", "sizes", "imperfect", "filters", "shift", "no_gold")
CHOOSING = ("strategies", "loop")
LATER_SEEDS = ("later_seeds",)
CANDIDATES = ("candidates",)
