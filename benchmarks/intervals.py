"""How often intervals over few seeds hold the truth: the crossed one, seeds alone, and a bootstrap.

The one idea: answers are drawn from a world whose truth is known. Seeds have skills of their own
(standard deviation `sd`), questions are hard for all seeds alike, and a difference is of two
methods on the same questions. A good interval holds the truth in 95 % of the trials, whatever `sd`.

    python benchmarks/intervals.py [--trials 1000] [--seed 0]
"""

import argparse
import sys
from collections.abc import Callable
from statistics import fmean

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.special import stdtrit

from bridgekd.stats.intervals import wilson_interval
from bridgekd.stats.mixed_effects import estimate_difference, estimate_proportion

N_RESAMPLES = 500
SKILLS = (0.5, 0.55)
Interval = tuple[float, float]


def draw_answers(rng: np.random.Generator, n_seeds: int, n_questions: int, sd: float) -> np.ndarray:
    """Right or wrong [methods, seeds, questions]; hardness is uniform, so that no chance is
    clipped and SKILLS are the truth.
    """
    hard = rng.uniform(-0.3, 0.3, size=n_questions)
    own = rng.normal(0, sd, size=(len(SKILLS), n_seeds, 1))
    chance = np.reshape(SKILLS, (-1, 1, 1)) + own + hard
    return (rng.random((*chance.shape[:2], n_questions)) < chance).astype(float)


def resample(n: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of n is in each of N_RESAMPLES draws of n."""
    return rng.multinomial(n, np.full(n, 1 / n), size=N_RESAMPLES)


def estimate_by_bootstrap(values: np.ndarray, seeds: np.ndarray, questions: np.ndarray) -> Interval:
    """Seeds drawn, then questions, the same for all seeds: percentiles of the means."""
    means = ((seeds @ values) * questions).sum(axis=1) / values.size
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def estimate_by_seeds(values: np.ndarray) -> Interval:
    """Student's t over the seeds' means."""
    means = values.mean(axis=1)
    half = stdtrit(len(means) - 1, 0.975) * means.std(ddof=1) / len(means) ** 0.5
    return float(means.mean() - half), float(means.mean() + half)


def estimate_pooled(right: np.ndarray) -> Interval:
    """Wilson's, as if every seed's answers were new questions: what nobody should do."""
    return wilson_interval(int(right.sum()), right.size)


def estimate_crossed(first: np.ndarray, second: np.ndarray | None = None) -> Interval:
    found_interval = (
        estimate_proportion(first) if second is None else estimate_difference(first, second)
    )
    return found_interval.low, found_interval.high


def count_coverage(
    n_trials: int, seed: int, n_seeds: int, n_questions: int, sd: float
) -> list[str]:
    """A row of the table: the share of trials that hold the truth, and the mean width in points."""
    rng = np.random.default_rng([seed, n_seeds, n_questions, round(1000 * sd)])
    draws = resample(n_seeds, rng), resample(n_questions, rng)
    ways: dict[str, Callable[[np.ndarray, np.ndarray], Interval]] = {
        "crossed": lambda a, b: estimate_crossed(a),
        "seeds": lambda a, b: estimate_by_seeds(a),
        "bootstrap": lambda a, b: estimate_by_bootstrap(a, *draws),
        "pooled": lambda a, b: estimate_pooled(a),
        "crossed, difference": estimate_crossed,
        "seeds, difference": lambda a, b: estimate_by_seeds(b - a),
        "bootstrap, difference": lambda a, b: estimate_by_bootstrap(b - a, *draws),
    }
    held: dict[str, list[bool]] = {name: [] for name in ways}
    widths: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(n_trials):
        one, other = draw_answers(rng, n_seeds, n_questions, sd)
        for name, way in ways.items():
            low, high = way(one, other)
            truth = SKILLS[1] - SKILLS[0] if "difference" in name else SKILLS[0]
            held[name].append(low <= truth <= high)
            widths[name].append(100 * (high - low))
    return [f"{fmean(held[n]):.1%} ({fmean(widths[n]):.1f})" for n in ways]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    table = Table(title="truth held (width in points)", box=None, title_justify="left")
    columns = (
        "crossed",
        "t over seeds",
        "bootstrap",
        "pooled",
        "crossed",
        "t over seeds",
        "bootstrap",
    )
    for name in ("seeds", "questions", "sd", *columns[:4], *(f"{c}, diff." for c in columns[4:])):
        table.add_column(name, justify="right")
    for n_seeds in (2, 3, 5, 8):
        for n_questions in (100, 600):
            for sd in (0.0, 0.02, 0.05):
                row = count_coverage(args.trials, args.seed, n_seeds, n_questions, sd)
                print(n_seeds, n_questions, sd, *row, sep=" | ", file=sys.stderr)
                table.add_row(str(n_seeds), str(n_questions), f"{sd:g}", *row)
    Console(width=170).print(table)


if __name__ == "__main__":
    main()
