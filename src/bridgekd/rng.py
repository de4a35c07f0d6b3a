"""Random numbers: each purpose has its own stream, so no two samples of one seed depend on each
other.
"""

import zlib

import numpy as np

SAMPLING_TEMPERATURE = 0.7  # of self-consistency in TA-in-the-Loop (arXiv 2406.05322)
SEED_STEP = 7919  # between two samples of one text, or two members of a committee


def make_rng(seed: int, purpose: str) -> np.random.Generator:
    """Return the generator of `purpose` under `seed`, independent of every other purpose."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode())])


def sample_indices(seed: int, purpose: str, *, n: int, of: int) -> list[int]:
    """Return min(`n`, `of`) different indices in [0, `of`), in ascending order."""
    return sorted(make_rng(seed, purpose).permutation(of)[:n].tolist())
