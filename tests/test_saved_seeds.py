"""An experiment that is analyzed once: its test, its files by seed, and tables from these alone."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom, ttest_1samp

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from claims.experiments import EXPERIMENTS
from claims.noninferiority import (
    compare_with_reference,
    compute_lower_limit,
    compute_one_sided_p,
)
from claims.saved_seeds import SavedArm, SavedChoice, SavedSeed, collect_answers, run_seeds
from claims.tables import format_noninferiority

from bridgekd.selection.representativeness import SelectionFigure
from bridgekd.stats.mixed_effects import compute_variance_of_mean

MARGIN, N = 0.02, 600
EXPERIMENT = EXPERIMENTS["candidates"]
ARMS = [row.title for row in EXPERIMENT.rows]


def draw_answers(rng, accuracies, n_seeds=20, n_questions=150, sd=0.03):
    """Answers [seeds, questions] of arms that share the questions; `sd` is that of each seed."""
    hard = rng.normal(0, 0.2, n_questions)
    return [
        (rng.random((n_seeds, n_questions)) < hard + rng.normal(a, sd, (n_seeds, 1))).astype(float)
        for a in accuracies
    ]


def test_where_questions_add_no_variance_it_is_the_t_test_of_the_differences_by_seed():
    rng, n_equal = np.random.default_rng(1), 0
    for _ in range(20):
        values = np.subtract(*draw_answers(rng, [0.5, 0.5]))
        freedom = compute_variance_of_mean(values)[1]
        by_seed = ttest_1samp(values.mean(axis=1), -MARGIN, alternative="greater")
        if abs(freedom - 19) < 1e-9:
            n_equal += 1
            assert compute_one_sided_p(values, -MARGIN) == pytest.approx(by_seed.pvalue)
            limit = by_seed.confidence_interval(0.95).low
            assert compute_lower_limit(values) == pytest.approx(limit)
        else:  # questions add variance
            assert compute_lower_limit(values) < by_seed.confidence_interval(0.95).low + 1e-12
    assert 0 < n_equal < 20


def test_lower_limit_is_above_the_margin_where_p_is_below_5_percent():
    rng = np.random.default_rng(2)
    shown = [
        (compute_one_sided_p(values, -MARGIN) < 0.05, compute_lower_limit(values) > -MARGIN)
        for values in (np.subtract(*draw_answers(rng, [0.5, 0.5])) for _ in range(50))
    ]
    assert all(p == limit for p, limit in shown) and len({p for p, _ in shown}) == 2


def test_one_of_four_arms_at_the_margin_is_passed_in_at_most_5_of_100_comparisons():
    rng, adjusted, single = np.random.default_rng(3), 0, 0
    for _ in range(N):
        reference, *arms = draw_answers(rng, [0.5, *[0.5 - MARGIN] * 4])
        verdicts = compare_with_reference(reference, dict(enumerate(arms)), MARGIN)
        adjusted += any(v.is_not_below for v in verdicts.values())
        single += verdicts[0].low > -MARGIN
    assert adjusted <= binom.ppf(1 - 5e-4, N, 0.05), adjusted
    assert binom.ppf(5e-4, N, 0.03) <= single <= binom.ppf(1 - 5e-4, N, 0.05), single


def test_equal_arm_passes_and_an_arm_far_below_is_shown_to_be():
    rng = np.random.default_rng(4)
    reference, equal, below, better = draw_answers(rng, [0.5, 0.5, 0.3, 0.6], sd=0.005)
    arms = {"equal": equal, "below": below, "better": better}
    verdicts = compare_with_reference(reference, arms, 0.06)
    assert {k: v.is_not_below for k, v in verdicts.items()} == {
        "equal": True, "below": False, "better": True,
    }  # fmt: skip
    assert [v.p_above < 0.05 for v in verdicts.values()] == [False, False, True]
    even, uneven = np.zeros((2, 3, 40))
    even[:, :20] = 1
    for row, n_right in zip(uneven, (24, 16, 20), strict=True):
        row[:n_right] = 1
    (open_,) = compare_with_reference(even, {"arm": uneven}, MARGIN).values()
    assert open_.is_not_below is None


def test_arm_with_the_reference_s_answers_is_not_below_it():
    (answers,) = draw_answers(np.random.default_rng(5), [0.5])
    (same,) = compare_with_reference(answers, {"arm": answers}, MARGIN).values()
    assert same.is_not_below and same.p_above == 1 and same.low == 0


def save(folder, seed, n_questions=60, arms=ARMS):
    rng = np.random.default_rng(seed)
    figures = (
        SelectionFigure("domains", 0.01 * (seed + 1), None, 0.05),
        SelectionFigure("typicality", 0.5, 0.6, 0.8),
    )
    choices = [
        SavedChoice(
            arm=SavedArm(
                arm=title, title=title, budget="5%", n_queries=200, spend_usd=0.16, seconds=9,
                correct="".join("01"[k] for k in rng.integers(0, 2, n_questions)),
                is_trained=False,
            ),
            strategy=title, picks={"clinic": 0.5, "statute": 0.5}, figures=figures,
        )
        for title in arms
    ]  # fmt: skip
    ids = tuple(map(str, range(n_questions)))
    saved = SavedSeed(experiment="candidates", seed=seed, ids=ids, choices=tuple(choices))
    (folder / f"candidates-{seed}.json").write_text(saved.model_dump_json())


def refuse_to_run(jobs):
    raise AssertionError(f"{len(jobs)} jobs of a seed that has a file")


def test_tables_come_from_the_files_of_all_seeds_and_nothing_is_run_again(tmp_path):
    for seed in range(4):
        save(tmp_path, seed)
    seeds = run_seeds("candidates", EXPERIMENT, range(4), tmp_path, refuse_to_run)
    right = collect_answers(seeds)
    assert list(right) == ARMS and right["random"].shape == (4, 60)
    text = format_noninferiority(EXPERIMENT, seeds)
    mean = 100 * (right["spread"] - right["random"]).mean()
    assert f"| {mean:+.1f} (" in text and "not below by 2 points" in text
    assert "| random | 0.025 (0) | 0.500 (4) | clinic 50%, statute 50% |" in text
    assert "| limits for random picks | at most 0.050 | 0.600 to 0.800 |  |" in text


def test_only_seeds_without_a_file_are_run(tmp_path):
    save(tmp_path, 0)
    asked = []

    def run_jobs(jobs):
        asked.extend(jobs)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_seeds("candidates", EXPERIMENT, [0, 1], tmp_path, run_jobs)
    assert [job.seed for job in asked] == [1] * len(ARMS)
    assert {job.settings for job in asked} == {row.job.settings for row in EXPERIMENT.rows}


def test_files_of_other_arms_or_questions_are_refused(tmp_path):
    save(tmp_path, 0, arms=ARMS[:-1])
    with pytest.raises(SystemExit, match=r"candidates-0.json has the arms random, spread"):
        run_seeds("candidates", EXPERIMENT, [0], tmp_path, refuse_to_run)
    save(tmp_path, 0)
    save(tmp_path, 1, n_questions=61)
    seeds = run_seeds("candidates", EXPERIMENT, [0, 1], tmp_path, refuse_to_run)
    with pytest.raises(SystemExit, match="other test questions"):
        collect_answers(seeds)
