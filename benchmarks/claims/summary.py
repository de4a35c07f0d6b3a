"""The papers' claims beside what was measured, each with an interval and a verdict by one rule: yes
where the 95 % interval lies wholly on the claim's side, no where it lies wholly on the other, else
not shown. A verdict is of a claim by itself, not corrected for how many there are, and of its
direction, not of its size.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bridgekd.stats.mixed_effects import Estimate, estimate_difference, estimate_ratio
from claims.experiments import WRONG
from claims.results import Line, collect_matrices

Lines = Mapping[str, Mapping[str, Line]]  # by the experiment's name, then by title
YES, NO, OPEN = "yes", "no", "not shown"


@dataclass(frozen=True, slots=True)
class Claim:
    """One line of the summary."""

    claim: str
    paper: str
    here: str
    holds: str


def summarize_claims(lines: Lines) -> list[Claim]:
    """Every claim whose experiment was carried out."""
    return [
        *_compare_headline(lines),
        *_compare_ablations(lines),
        *_compare_sizes(lines),
        *_compare_loops(lines),
    ]


def _compare_headline(lines: Lines) -> Iterator[Claim]:
    if "methods" not in lines:
        return
    arm = lines["methods"]
    yield _estimate_relative(
        "BRIDGE above direct at the same 5 %, relative", "+28 to +41 %", arm["bridge"],
        arm["direct"],
    )  # fmt: skip
    yield _estimate_gap(arm["bridge"], arm["direct"], arm["teacher"])
    yield _estimate_difference(
        "BRIDGE at 5 % minus direct at 100 %", "above", arm["bridge"], arm["direct_full"]
    )
    if "scaling" in lines:
        yield _estimate_saved_queries(arm["bridge"], lines["scaling"], arm["direct_full"])


def _compare_ablations(lines: Lines) -> Iterator[Claim]:
    if "assistants" in lines:
        chosen, random = (lines["assistants"][f"{name} picks"] for name in ("bridge", "random"))
        yield _estimate_difference(
            "assistant: chosen minus random questions", "above", chosen, random
        )
    if "methods" in lines:
        arm = lines["methods"]
        for other, what, paper in (
            ("random", "student: chosen minus random questions", "above"),
            ("hardest", "with diversity minus without (hardest)", "above: semantic collapse"),
            ("diverse", "with difficulty minus without (diverse)", "above"),
            (
                "no_instruct",
                "with instruction tuning minus without",
                "above: instruction blindness",
            ),
            ("no_warm_up", "with warm-up minus without", "above"),
        ):
            yield _estimate_difference(what, paper, arm["bridge"], arm[other])
    if "scaling" in lines:
        arm = lines["scaling"]
        yield _estimate_difference("BRIDGE at 5 % minus direct at 10 %", "above", arm["bridge 5%"],
                          arm["direct 10%"])  # fmt: skip


def _compare_sizes(lines: Lines) -> Iterator[Claim]:
    if "sizes" in lines:
        arm = lines["sizes"]
        middle, small, large = (arm[f"{size}: student"] for size in ("middle", "small", "large"))
        yield _estimate_difference("student: middle minus small assistant", "above", middle,
                          small)  # fmt: skip
        yield _estimate_difference("student: large minus middle assistant", "little above",
                          large, middle)  # fmt: skip


def _compare_loops(lines: Lines) -> Iterator[Claim]:
    for wrong in WRONG if "imperfect" in lines else ():
        loop, direct = (
            lines["imperfect"][f"{title}, teacher wrong {wrong:.0%}"]
            for title in ("loop, P(True)", "direct")
        )
        yield _estimate_relative(
            f"TA-in-the-Loop above direct, teacher wrong {wrong:.0%}, relative",
            "up to +20.79 %", loop, direct,
        )  # fmt: skip


def _estimate_relative(claim: str, paper: str, arm: Line, reference: Line) -> Claim:
    one, other = collect_matrices(arm, reference)
    return _describe_holding(claim, paper, estimate_ratio(one - other, other), " %")


def _estimate_gap(arm: Line, reference: Line, teacher: Line) -> Claim:
    one, other, best = collect_matrices(arm, reference, teacher)
    estimate = estimate_ratio(one - other, best - other)
    return _describe_holding("of direct's gap to the teacher closed", "12 to 16 %", estimate, " %")


def _estimate_difference(claim: str, paper: str, arm: Line, reference: Line) -> Claim:
    one, other = collect_matrices(arm, reference)
    estimate = estimate_difference(other, one)
    return _describe_holding(
        claim, paper, Estimate(estimate.mean, estimate.low, estimate.high), " points"
    )


def _describe_holding(claim: str, paper: str, found: Estimate | None, unit: str) -> Claim:
    if found is None:
        return Claim(claim, paper, "no figure: what it is divided by may be 0", OPEN)
    mean, low, high = (f"{100 * value:+.1f}" for value in (found.mean, found.low, found.high))
    holds = YES if found.low > 0 else NO if found.high < 0 else OPEN
    return Claim(claim, paper, f"{mean}{unit} ({low} to {high})", holds)


def _estimate_saved_queries(bridge: Line, scaling: Mapping[str, Line], full: Line) -> Claim:
    """How many times BRIDGE's budget direct buys and is still shown below it: yes from ten on; no
    where direct is shown above it with ten times or less.
    """
    shares = [title.removeprefix("direct ") for title in scaling if title.startswith("direct ")]
    budgets = [*((s, scaling[f"direct {s}"]) for s in shares), ("100%", full)]
    below, above = _find_bracket(bridge, budgets)
    beaten = "above with none" if above is None else f"above with {above:g}x"
    first = f"with up to {below:g}x" if below else "with none"
    here = f"{first} direct is shown below, {beaten}"
    holds = YES if below >= 10 else NO if above is not None and above <= 10 else OPEN
    return Claim("teacher queries saved against direct", "10x", here, holds)


def _find_bracket(bridge: Line, budgets: Sequence[tuple[str, Line]]) -> tuple[float, float | None]:
    """In BRIDGE's budgets: the last one of those in a row with which direct is shown below it, and
    the first with which it is shown above.
    """
    pairs = [
        (float(share.rstrip("%")) / 5, estimate_difference(*collect_matrices(bridge, direct)))
        for share, direct in budgets
    ]
    below = 0.0
    for times, less in pairs:
        if less.high >= 0:
            break
        below = times
    return below, next((times for times, less in pairs if less.low > 0), None)
