"""Embeddings of texts by a sentence-transformers model, in place of the assistant's own states."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bridgekd.errors import BadInput
from bridgekd.lm.loading import LOAD_ERRORS, resolve_device
from bridgekd.progress import Progress, silent

CHUNK = 64  # batches between two signs of progress


def embed(
    model: str | Path,
    texts: Sequence[str],
    *,
    device: str,
    batch_size: int,
    progress: Progress = silent,
    label: str = "embed",
) -> NDArray[np.float32]:
    """Embeddings [n, width] of length 1. BadInput where the model or the package is missing."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as exc:
        raise BadInput(
            "select.encoder needs sentence-transformers; pip install 'bridgekd[embed]'"
        ) from exc
    try:
        encoder: Any = SentenceTransformer(str(model), device=resolve_device(device))
    except LOAD_ERRORS as exc:
        raise BadInput(f"encoder {model} cannot be loaded ({exc}); give another") from exc
    parts = []
    for start in range(0, len(texts), CHUNK * batch_size):
        some = list(texts[start : start + CHUNK * batch_size])
        found = encoder.encode(
            some, batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False
        )
        parts.append(np.asarray(found, dtype=np.float32))
        progress(label, start + len(some), len(texts))
    return np.concatenate(parts)
