"""What `plan --advise` says: the verdict with its reason, and what to do next."""

from io import StringIO

import pytest
from rich.console import Console

from bridgekd.terminal_advice import print_advice, verdict

GAIN = {"mean": 0.1, "low": -0.05, "high": 0.2}


def told(kind, leader, p, *, alike=0.5, share=0.2):
    best = {"tutored": p, "direct": 1 - p, "answers_only": 0.0}
    if leader == "answers_only":
        best |= {"direct": 0.0, "answers_only": 1 - p}
    return {
        "verdict": kind, "leader": leader, "best": best, "gain": GAIN, "p_gain": p, "sure": 0.9,
        "p_if_runs_were_alike": alike, "share": share, "budget": 200, "n_pool": 4000,
        "n_asked": 40, "n_measured": 400,
        "arms": {arm: {"mean": 0.4, "low": 0.3, "high": 0.5} for arm in best},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (told("assistant", "tutored", 0.97), "pays off here (97% sure): run bridge or random"),
        (told("assistant", "tutored", 1.0), "(over 99% sure)"),
        (told("no assistant", "direct", 0.04), "(96% sure): the likeliest to be the best is the "),
        (told("no assistant", "answers_only", 0.04), "answers alone (96%), at no cost; method: a"),
        (
            told("cannot tell", "direct", 0.4),
            "(40% for an assistant); the likeliest to be the best is student, direct (60%)",
        ),
        (told("cannot tell", "direct", 0.4), "--set advise.share=0.4."),
        (told("cannot tell", "direct", 0.4, share=0.5), "compare random, direct and answers_only"),
        (told("cannot tell", "direct", 0.4), "ruled out: student, answers alone. A larger pilot"),
        (told("cannot tell", "answers_only", 0.4), "alone (60%), and ruled out: student, direct. "),
        (told("cannot tell", "answers_only", 0.4), "No query: student, answers alone."),
        (told("cannot tell", "tutored", 0.8, alike=0.95), "many runs an assistant is better (95%"),
        (told("cannot tell", "direct", 0.2, alike=0.05), "many runs an assistant is worse (95%"),
    ],
)
def test_a_verdict_says_how_sure_it_is_and_what_to_do(case, words):
    assert words in verdict(case)


def test_every_arm_is_shown_with_its_interval():
    text = StringIO()
    print_advice(Console(file=text, width=200), told("assistant", "tutored", 0.95))
    shown = text.getvalue()
    assert "Student, through an assistant" in shown and "30.0% to 50.0%" in shown
    assert "+10.0 points (-5.0 to +20.0); a run with one is better with probability 95%" in shown
