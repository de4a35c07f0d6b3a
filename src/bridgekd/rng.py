"""Random draws: one stream per purpose, so that two draws from one seed never follow each other."""

import zlib

import numpy as np

SAMPLING_TEMPERATURE = 0.7  # TA-in-the-Loop's (arXiv 2406.05322) for self-consistency
SEED_STEP = 7919  # from one sample of a text, or one member of a committee, to the next


def make_rng(seed: int, purpose: str) -> np.random.Generator:
    """The generator of `purpose` under `seed`; other purposes are independent of it."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode())])


def sample_indices(seed: int, purpose: str, *, n: int, of: int) -> list[int]:
    """`n` places of `of`, drawn at random without repetition, in ascending order."""
    return sorted(make_rng(seed, purpose).permutation(of)[:n].tolist())
