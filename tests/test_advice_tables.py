"""The tables that hold the advice against what then happened, on worlds written by hand."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from advice_tables import ARMS, POLICIES, naive, told_of

SEEN = {
    "random": 0.5, "direct": 0.4, "answers_only": 0.3, "student_instructed": 0.2,
    "student_base": 0.1, "bridge": 0.45,
}  # fmt: skip


def world(number, verdict, p, **seen):
    """A world whose pilot saw 0.1 of every arm, and foretold 0.3 to 0.5."""
    measured = SEEN | seen
    points = [
        {"role": "apprentice", "size": 4, "tutor": -1, "accuracy": 0.9},
        {"role": "apprentice", "size": 16, "tutor": -1, "accuracy": 0.9},
        {"role": "tutored", "size": 400, "tutor": 0, "accuracy": 0.7},
        {"role": "tutored", "size": 100, "tutor": 1, "accuracy": 0.6},
        {"role": "tutored", "size": 400, "tutor": 1, "accuracy": 0.2},
        {"role": "tutored", "size": 400, "tutor": 1, "accuracy": 0.4},
        *(
            {"role": arm, "size": 4, "tutor": -1, "accuracy": 0.1}
            for arm in ARMS
            if arm != "tutored"
        ),
    ]
    others = [arm for arm in ARMS if arm != "tutored"]
    best = {"tutored": p} | dict.fromkeys(others, (1 - p) / 4)
    ends = {"low": 0.3, "mean": 0.4, "high": 0.5, "place": 0.5}
    foretold = {arm: ends | {"seen": measured[name]} for arm, name in ARMS.items()}
    return {
        "world": {"number": number, "budget": 100},
        "told": {
            "verdict": verdict, "best": best, "p_gain": p, "n_asked": 20, "arms": dict(best),
            "leader": max(best, key=best.__getitem__), "pilot": points,
        },
        "seen": measured,
        "foretold": foretold | {"bridge": ends | {"seen": measured["bridge"]}},
        "gain": ends | {"seen": measured["random"] - measured["direct"]},
    }  # fmt: skip


WORLDS = [
    world(0, "assistant", 0.95),
    world(1, "no assistant", 0.05, random=0.2, bridge=0.2),
    world(2, "assistant", 0.95, random=0.2, bridge=0.2),
    world(3, "cannot tell", 0.6),
    {"world": {"number": 4}, "refused": "too few"},
]


def row(text, name):
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_intervals_verdicts_and_chances_are_counted_as_they_came():
    text = told_of(WORLDS)
    assert row(text, "tutored")[2].startswith("2 of 4: 50%")
    assert row(text, "direct")[2].startswith("4 of 4")
    assert row(text, "tutored")[5] == "15.0"  # 0.1, 0.2, 0.2 and 0.1 away
    assert row(text, "assistant")[2].startswith("1 of 2")
    assert row(text, "no assistant")[2].startswith("1 of 1")
    assert row(text, "cannot tell")[1:3] == ["1", ""]
    best = row(text, "tutored is the best")
    assert best[1].startswith("2 of 4") and best[2:6] == ["0 of 1", "0 of 0", "1 of 1", "1 of 2"]
    brier = (2 * 0.05**2 + 0.95**2 + 0.4**2) / 4
    assert float(best[6]) == pytest.approx(brier, abs=6e-4) and best[7] == "0.250"
    assert "5 worlds; in 1 the pilot was too small" in text


def test_a_policy_loses_what_the_best_arm_had_more_and_pays_for_the_pilot():
    text = told_of(WORLDS)
    less = "+5.0 (-10.9 to +20.9)"  # 0.2 in one of four worlds, by t over them
    assert row(text, "always random")[1:] == ["10.0", "20.0", "100", less]
    assert row(text, "always answers_only")[3] == "0"
    free = row(text, "the advice, else answers_only")  # tutored, direct, tutored, answers_only
    assert free[1:4] == ["10.0", "20.0", "80"]
    assert {POLICIES["the best in the pilot"](world) for world in WORLDS[:4]} == {"random"}


def test_the_naive_forecast_is_of_the_students_that_learnt_from_most():
    assert naive(WORLDS[0], "tutored") == naive(WORLDS[0], "bridge") == pytest.approx(0.3)
    assert naive(WORLDS[0], "direct") == pytest.approx(0.1)


def test_worlds_whose_pilots_all_refused_are_told():
    assert told_of([WORLDS[4]]) == "1 worlds, and no pilot advised."
