"""Draws from a posterior whose prior is standard normal in every direction.

The one idea: the likelihood is let in bit by bit. Between two bits the draws are weighted, drawn
anew and moved about by Metropolis steps, so that they never have to jump far (sequential Monte
Carlo, Del Moral, Doucet and Jasra 2006). Nothing has to be tuned and there is no start to forget.
"""

from collections.abc import Callable

import numpy as np

LogLikelihood = Callable[[np.ndarray], np.ndarray]  # [draws, dimensions] -> [draws]

N_MOVES = 10  # Metropolis steps after each bit
_STEP = 2.38  # over the root of the dimensions: best for a normal posterior
_KEPT = 0.5  # of the draws, as effective sample size, when a bit is let in
_HALVINGS = 40


def posterior(
    log_likelihood: LogLikelihood, n_dimensions: int, rng: np.random.Generator, n: int = 2000
) -> np.ndarray:
    """`n` draws [n, n_dimensions] from the density that is proportional to `log_likelihood`'s
    exponential times a standard normal.
    """
    z = rng.standard_normal((n, n_dimensions))
    fit, share, scale = log_likelihood(z), 0.0, _STEP / n_dimensions**0.5
    while share < 1:
        bit = _bit(fit, 1 - share)
        share = min(1.0, share + bit)
        kept = _drawn_anew(np.exp(bit * (fit - fit.max())), rng)
        z, fit = z[kept], fit[kept]
        spread = np.linalg.cholesky(np.cov(z.T) + 1e-6 * np.eye(n_dimensions))
        for _ in range(N_MOVES):
            to = z + scale * rng.standard_normal(z.shape) @ spread.T
            new = log_likelihood(to)
            gain = share * (new - fit) + 0.5 * ((z**2).sum(axis=1) - (to**2).sum(axis=1))
            goes = np.log(rng.random(n)) < gain
            z[goes], fit[goes] = to[goes], new[goes]
            scale *= np.exp(goes.mean() - 0.25)  # towards a quarter that go
    return z


def _bit(fit: np.ndarray, most: float) -> float:
    """How much of the likelihood can be let in at once."""
    if _effective(most * fit) >= _KEPT * len(fit):
        return most
    low, high = 0.0, most
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if _effective(middle * fit) >= _KEPT * len(fit) else (low, middle)
        )
    return max(low, 1e-9)


def _effective(log_weights: np.ndarray) -> float:
    weights = np.exp(log_weights - log_weights.max())
    return float(weights.sum() ** 2 / (weights**2).sum())


def _drawn_anew(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows by weight, one draw spread evenly over all (systematic resampling)."""
    n = len(weights)
    places = (rng.random() + np.arange(n)) / n
    return np.minimum(np.searchsorted(np.cumsum(weights) / weights.sum(), places), n - 1)
