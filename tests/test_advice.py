"""Advice on worlds whose truth is planted: intervals hold, verdicts follow, and nothing is told
that was not measured.
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, logit

from bridgekd.core.advice import Model, Point, Runs, advised, runs_at
from bridgekd.core.curves import logits
from bridgekd.core.particles import posterior

N_QUESTIONS, N_POOL, BUDGET = 300, 2000, 160
POINTS = [
    Point("base"), Point("instructed"), Point("warm"), Point("answers_only", 1700),
    *(Point("direct", m) for m in (8, 16, 32)), *(Point("apprentice", m) for m in (8, 16, 32)),
    Point("tutored", 1700, 7), Point("tutored", 425, 9), Point("tutored", 1700, 9),
]  # fmt: skip


def answered(truth, rng, n=N_QUESTIONS):
    """Right or wrong [models, questions] of models with these accuracies; what is hard is hard for
    all of them.
    """
    hard = rng.normal(0, 1, n)
    ease = np.linspace(-4, 4, 4001)
    typical = np.array([expit(a + rng.normal(0, 1, 2000)).mean() for a in 2 * ease[::40]])
    middles = np.interp(truth, typical, 2 * ease[::40])
    return rng.random((len(truth), n)) < expit(middles[:, None] + hard)


def power_law(start, ceiling, scale, power):
    return lambda m: ceiling - (ceiling - start) * (1 + m / scale) ** -power


def exponential(start, ceiling, scale):
    return lambda m: ceiling - (ceiling - start) * np.exp(-m / scale)


def logarithmic(start, ceiling, scale):
    """By logits, from start to ceiling over seven doublings of scale."""
    ends = logit(start), logit(ceiling)
    return lambda m: expit(ends[0] + (ends[1] - ends[0]) * np.log2(1 + m / scale) / 7)


def planted(rng):
    """(accuracies of POINTS, of runs at the budget by arm): curves of three kinds, of which the fit
    knows one.
    """
    kinds = (
        lambda a, c: power_law(a, c, rng.uniform(10, 150), rng.uniform(0.3, 1.5)),
        lambda a, c: exponential(a, c, rng.uniform(15, 120)),
        lambda a, c: logarithmic(a, c, rng.uniform(1, 5)),
    )
    low, high = rng.uniform(0.05, 0.35), rng.uniform(0.2, 0.5)
    direct = kinds[rng.integers(3)](low, rng.uniform(low, 0.8))
    assistant = kinds[rng.integers(3)](high, rng.uniform(high, 0.95))
    shift, slope, growth = rng.normal(-0.3, 0.5), rng.uniform(0.7, 1.3), rng.uniform(0, 0.3)
    sd = rng.uniform(0.02, 0.2)
    answers = rng.uniform(0.1, 0.6)

    def run(middle):
        return expit(logit(np.clip(middle, 0.002, 0.998)) + rng.normal(0, sd))

    def taught(by, size):
        return expit(shift + slope * logit(by) + growth * np.log(size / N_POOL))

    truth = [0.02, low, high, run(answers)]
    truth += [run(direct(p.size)) for p in POINTS[4:7]]
    truth += [run(assistant(p.size)) for p in POINTS[7:10]]
    truth += [run(taught(truth[p.tutor], p.size)) for p in POINTS[10:]]
    then = {"direct": run(direct(BUDGET)), "answers_only": run(answers), "instructed": low}
    return np.array(truth), then | {"tutored": run(taught(run(assistant(BUDGET)), N_POOL))}


@pytest.fixture(scope="module")
def foretold():
    """Of 150 planted worlds: the drawn runs, and what came of them."""
    found = []
    for k in range(150):
        rng = np.random.default_rng([7, k])
        truth, then = planted(rng)
        runs = runs_at(
            POINTS, answered(truth, rng), budget=BUDGET, n_pool=N_POOL, seed=k, n_draws=600
        )
        found.append((runs, then))
    return found


@pytest.mark.parametrize("arm", ["direct", "tutored", "answers_only", "instructed"])
def test_intervals_hold_the_truth_as_often_as_they_say(foretold, arm):
    """Of curves that the fit does not know, too: there about 92 of 100, and not by being wide."""
    held = [low <= then[arm] <= high for runs, then in foretold for low, high in [ends(runs, arm)]]
    widths = [high - low for runs, _ in foretold for low, high in [ends(runs, arm)]]
    assert np.mean(held) >= 0.88
    assert np.mean(widths) < {"instructed": 0.13, "answers_only": 0.25}.get(arm, 0.5)


def ends(runs, arm):
    return np.quantile(runs.single[arm], [0.025, 0.975])


def test_intervals_are_exact_where_worlds_are_as_the_priors_say():
    """120 worlds drawn from the model itself, four arms each: 95 of 100 are held, 92 to 98 by
    chance and as the draws are few.
    """
    held, model = [], Model(POINTS, budget=BUDGET, n_pool=N_POOL)
    for k in range(120):
        rng = np.random.default_rng([9, k])
        z = rng.standard_normal((1, model.n_dimensions))
        sd = model.spread(z)[0]
        truth = expit(model(z)[0] + sd * model.lucky * rng.standard_normal(len(POINTS)))
        luck = sd * rng.standard_normal(4)
        assistant = model.learnt(z, "apprentice", [BUDGET])[:, 0] + luck[0]
        then = {
            "tutored": model.taught(z, assistant, N_POOL)[0] + luck[1],
            "direct": model.learnt(z, "direct", [BUDGET])[0, 0] + luck[2],
            "answers_only": model.answered(z, N_POOL)[0] + luck[3],
            "instructed": model.level(z, "instructed")[0],
        }
        right = answered(truth, rng)
        runs = runs_at(POINTS, right, budget=BUDGET, n_pool=N_POOL, seed=k, n_draws=600)
        held += [low <= expit(then[a]) <= high for a in then for low, high in [ends(runs, a)]]
    assert 0.92 <= np.mean(held) <= 0.98


def test_a_difference_of_two_arms_is_held_as_well(foretold):
    held = []
    for runs, then in foretold:
        gain = runs.single["tutored"] - runs.single["direct"]
        low, high = np.quantile(gain, [0.025, 0.975])
        held.append(low <= then["tutored"] - then["direct"] <= high)
    assert np.mean(held) >= 0.90


def test_verdicts_are_right_as_often_as_they_say_and_are_given(foretold):
    told = [(advised(runs, sure=0.9), then) for runs, then in foretold]
    right = [
        (then["tutored"] == max(then.values())) == (a.verdict == "assistant")
        for a, then in told
        if a.verdict != "cannot tell"
    ]
    assert len(right) > 0.4 * len(told)
    assert np.mean(right) >= 0.85


def test_probabilities_are_those_of_what_happens(foretold):
    """Of worlds where an assistant is called the best with p, a share of about p has it."""
    p = np.array([advised(runs, sure=0.9).best["tutored"] for runs, _ in foretold])
    came = np.array([then["tutored"] == max(then.values()) for _, then in foretold])
    assert abs(p.mean() - came.mean()) < 0.1
    assert np.mean((p - came) ** 2) < 0.15


def test_a_larger_pilot_says_more():
    rng = np.random.default_rng(0)
    truth, _ = planted(rng)
    few, many = (answered(truth, rng, n) for n in (50, 2000))
    widths = []
    for right in (few, many):
        runs = runs_at(POINTS, right, budget=BUDGET, n_pool=N_POOL)
        widths.append(np.diff(ends(runs, "direct"))[0])
    assert widths[1] < widths[0]


def test_the_same_pilot_says_the_same():
    right = answered(planted(np.random.default_rng(1))[0], np.random.default_rng(2))
    one, two = (runs_at(POINTS, right, budget=BUDGET, n_pool=N_POOL, n_draws=200) for _ in range(2))
    assert all((one.single[arm] == two.single[arm]).all() for arm in one.single)


def test_models_that_are_never_or_always_right_break_nothing():
    right = np.zeros((len(POINTS), 40), dtype=bool)
    right[8:] = True
    told = advised(runs_at(POINTS, right, budget=BUDGET, n_pool=N_POOL, n_draws=300), sure=0.9)
    assert all(0 <= t.low <= t.mean <= t.high <= 1 for t in told.arms.values())


def test_an_arm_that_was_not_measured_is_not_told_of():
    some = [replace(p, tutor=p.tutor - 2 if p.tutor >= 0 else -1) for p in POINTS]
    some = [p for p in some if p.role not in ("base", "answers_only")]
    right = answered(np.full(len(some), 0.3), np.random.default_rng(0))
    told = advised(runs_at(some, right, budget=BUDGET, n_pool=N_POOL, n_draws=200), sure=0.9)
    assert set(told.arms) == {"tutored", "direct", "instructed"}


def drawn_runs(**middles):
    rng = np.random.default_rng(0)
    single = {arm: rng.normal(*middle, 4000) for arm, middle in middles.items()}
    return Runs(single, {arm: np.full(4000, m) for arm, (m, _) in middles.items()})


@pytest.mark.parametrize(
    ("runs", "verdict", "leader"),
    [
        ({"tutored": (0.6, 0.03), "direct": (0.4, 0.03)}, "assistant", "tutored"),
        ({"tutored": (0.4, 0.03), "direct": (0.6, 0.03)}, "no assistant", "direct"),
        ({"tutored": (0.5, 0.1), "direct": (0.45, 0.1)}, "cannot tell", "tutored"),
        (
            {"tutored": (0.5, 0.03), "direct": (0.4, 0.03), "answers_only": (0.7, 0.03)},
            "no assistant",
            "answers_only",
        ),
        # no assistant, though nobody knows which of the two others is the best
        (
            {"tutored": (0.4, 0.02), "direct": (0.6, 0.05), "answers_only": (0.62, 0.05)},
            "no assistant",
            "answers_only",
        ),
    ],
)
def test_the_verdict_follows_the_probability_of_being_the_best(runs, verdict, leader):
    told = advised(drawn_runs(**runs), sure=0.9)
    assert (told.verdict, told.leader) == (verdict, leader)
    assert sum(told.best.values()) == pytest.approx(1)


def test_what_runs_differ_by_is_told_apart_from_what_a_pilot_could_learn():
    told = advised(drawn_runs(tutored=(0.5, 0.05), direct=(0.49, 0.05)), sure=0.9)
    assert told.verdict == "cannot tell"
    assert told.p_on_average == told.p_if_runs_were_alike == 1.0


def test_draws_are_those_of_a_posterior_that_is_known():
    """Normal prior, normal likelihood: mean 0.8 y and variance 0.2 where the error's is 0.25."""
    y = np.array([2.0, -1.0])
    z = posterior(
        lambda z: -2 * ((z - y) ** 2).sum(axis=1), 2, np.random.default_rng(0), n=4000
    )  # fmt: skip
    assert z.mean(axis=0) == pytest.approx(0.8 * y, abs=0.04)
    assert z.var(axis=0) == pytest.approx(0.2, abs=0.03)


def test_curves_go_through_their_start_and_towards_their_ceiling():
    model = Model(POINTS, budget=BUDGET, n_pool=N_POOL)
    z = np.zeros((1, model.n_dimensions))
    told = expit(model.learnt(z, "direct", [0, 100, 10**9])[0])
    assert told[0] == pytest.approx(0.5)
    assert told[0] < told[1] < told[2] == pytest.approx(expit(1.5), abs=0.01)
    assert logits(np.array([0.0, 1.0])) == pytest.approx([logit(0.001), logit(0.999)])
