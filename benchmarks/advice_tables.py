"""What many worlds say of the advice, as Markdown: whether intervals hold, whether probabilities
are as stated, how verdicts turned out, and what following them costs against simpler rules.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from claims.tables import as_table
from scipy.stats import t

from bridgekd.core.statistics import wilson

Row = dict[str, Any]
ARMS = {  # of the advice, and which arm of a run each is
    "tutored": "random",
    "direct": "direct",
    "answers_only": "answers_only",
    "instructed": "student_instructed",
    "base": "student_base",
}
PAYING = ("bridge", "random", "direct")
BINS = ((0.0, 0.1), (0.1, 0.5), (0.5, 0.9), (0.9, 1.0))


def told_of(rows: Sequence[Row]) -> str:
    """All tables; worlds whose pilot refused are told and left out."""
    told = [r for r in rows if "refused" not in r]
    if not told:
        return f"{len(rows)} worlds, and no pilot advised."
    parts = [_intervals(told), _probabilities(told), _verdicts(told), _policies(told)]
    timed = [r for r in told if "seconds" in r]
    last = f"{len(rows)} worlds; in {len(rows) - len(told)} the pilot was too small to advise."
    if timed:
        last += (
            f" {fmean(r['seconds'] for r in timed):.0f} processor seconds a world, of which the "
            f"pilot {fmean(r['pilot_s'] for r in timed):.0f}."
        )
    return "\n\n".join([*parts, last])


def _intervals(rows: Sequence[Row]) -> str:
    """Beside the forecast's mean absolute error, that of its largest pilot models taken as they
    are.
    """
    found = {
        arm: [(r["foretold"][arm], naive(r, arm)) for r in rows if arm in r["foretold"]]
        for arm in (*ARMS, "bridge")
    }
    gains = [(r["gain"], naive(r, "tutored") - naive(r, "direct")) for r in rows]
    found["tutored - direct"] = gains
    lines = []
    for name, pairs in ((name, pairs) for name, pairs in found.items() if pairs):
        those = [f for f, _ in pairs]
        held = sum(f["low"] <= f["seen"] <= f["high"] for f in those)
        lines.append(
            (name, str(len(those)), _share(held, len(those)),
             _points(f["high"] - f["low"] for f in those),
             f"{100 * fmean(f['seen'] - f['mean'] for f in those):+.1f}",
             _points(abs(f["seen"] - f["mean"]) for f in those),
             _points(abs(f["seen"] - last) for f, last in pairs),
             f"{fmean(f['place'] for f in those):.2f}")
        )  # fmt: skip
    head = ("foretold", "worlds", "held by the 95 % interval", "mean width", "mean error",
            "mean absolute error", "of the last pilot models", "mean place")  # fmt: skip
    return as_table(head, lines)


def naive(row: Row, arm: str) -> float:
    """The mean accuracy of the pilot's models of this arm that learnt from most."""
    role = "tutored" if arm == "bridge" else arm
    points = row["told"]["pilot"]
    those = [p for p in points if p["role"] == role]
    if role == "tutored":
        most = max(points[p["tutor"]]["size"] for p in those)
        those = [p for p in those if points[p["tutor"]]["size"] == most]
    largest = max(p["size"] for p in those)
    return fmean(p["accuracy"] for p in those if p["size"] == largest)


def _probabilities(rows: Sequence[Row]) -> str:
    """Stated probabilities and how often it came so; Brier's score beside that of the base rate."""
    asked: dict[str, list[tuple[float, bool]]] = {
        "tutored is the best": [(r["told"]["best"]["tutored"], lead(r) > 0) for r in rows],
        "tutored beats direct": [(r["told"]["p_gain"], r["gain"]["seen"] > 0) for r in rows],
    }
    lines = []
    for name, pairs in asked.items():
        rate = fmean(came for _, came in pairs)
        cells = [_binned(pairs, low, high) for low, high in BINS]
        brier = fmean((p - came) ** 2 for p, came in pairs)
        base = _share(sum(came for _, came in pairs), len(pairs))
        lines.append((name, base, *cells, f"{brier:.3f}", f"{rate * (1 - rate):.3f}"))
    bins = [f"told {low:.0%} to {high:.0%}" for low, high in BINS]
    return as_table(("", "came so", *bins, "Brier", "of the base rate"), lines)


def _binned(pairs: Sequence[tuple[float, bool]], low: float, high: float) -> str:
    """How often it came so among those told a probability in [low, high), 1 in the last."""
    those = [came for p, came in pairs if low <= p < high or p == high == 1.0]
    return f"{sum(those)} of {len(those)}"


def _verdicts(rows: Sequence[Row]) -> str:
    lines = []
    for verdict, n in Counter(r["told"]["verdict"] for r in rows).most_common():
        those = [r for r in rows if r["told"]["verdict"] == verdict]
        right = sum((lead(r) > 0) == (verdict == "assistant") for r in those)
        shown = "" if verdict == "cannot tell" else _share(right, n)
        lines.append((verdict, str(n), shown, f"{100 * fmean(lead(r) for r in those):+.1f}"))
    return as_table(("verdict", "worlds", "right", "mean of tutored less the best other"), lines)


def _policies(rows: Sequence[Row]) -> str:
    lines = []
    named = np.array([r["seen"][_likeliest(r)] for r in rows])
    for name, policy in POLICIES.items():
        chosen = [policy(r) for r in rows]
        lost = [_top(r) - r["seen"][arm] for r, arm in zip(rows, chosen, strict=True)]
        asks = "always" not in name
        paid = fmean(_paid(r, arm, asks) for r, arm in zip(rows, chosen, strict=True))
        lines.append((name, _points(lost), f"{100 * max(lost):.1f}", f"{paid:.0f}",
                      _paired(named - [r["seen"][a] for r, a in zip(rows, chosen, strict=True)]))
                    )  # fmt: skip
    head = ("what is done", "mean points below the best arm", "largest", "mean queries",
            "worse than the likeliest by")  # fmt: skip
    return as_table(head, lines)


def _paired(less: np.ndarray) -> str:
    """The mean and its 95 % interval by t over worlds."""
    if len(less) < 2 or not less.any():
        return ""
    mean, error = less.mean(), less.std(ddof=1) / len(less) ** 0.5
    low, high = t.interval(0.95, len(less) - 1, mean, error)
    return f"{100 * mean:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def _paid(row: Row, arm: str, piloted: bool) -> int:
    """Queries of the pilot and the arm; random and direct ask the pilot's questions anyway."""
    budget = row["world"]["budget"] if arm in PAYING else 0
    pilot = row["told"]["n_asked"] if piloted else 0
    return max(budget, pilot)


def advised(row: Row, otherwise: str) -> str:
    """The arm that the advice names; where it cannot tell, another."""
    told = row["told"]
    return otherwise if told["verdict"] == "cannot tell" else ARMS[told["leader"]]


def _likeliest(row: Row) -> str:
    best = row["told"]["best"]
    return ARMS[max(best, key=best.__getitem__)]


def _ahead(row: Row) -> str:
    """The arm whose last pilot models were the best."""
    return ARMS[max(row["told"]["arms"], key=lambda arm: naive(row, arm))]


POLICIES: dict[str, Callable[[Row], str]] = {
    "always bridge": lambda row: "bridge",
    "always random": lambda row: "random",
    "always direct": lambda row: "direct",
    "always answers_only": lambda row: "answers_only",
    "the advice, else random": lambda row: advised(row, "random"),
    "the advice, else answers_only": lambda row: advised(row, "answers_only"),
    "the likeliest arm, told or not": _likeliest,
    "the best in the pilot": _ahead,
}


def _top(row: Row) -> float:
    return float(max(row["seen"][arm] for arm in (*ARMS.values(), "bridge")))


def lead(row: Row) -> float:
    """What the student of an assistant has over the best other, in shares."""
    others = [row["seen"][name] for arm, name in ARMS.items() if arm != "tutored"]
    return float(row["seen"]["random"] - max(others))


def _points(shares: Iterable[float]) -> str:
    return f"{100 * fmean(shares):.1f}"


def _share(k: int, n: int) -> str:
    low, high = wilson(k, n)
    return f"{k} of {n}: {k / n:.0%} ({low:.0%} to {high:.0%})"
