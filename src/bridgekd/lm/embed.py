"""Embeddings of texts from a sentence-transformers model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bridgekd.errors import InputError
from bridgekd.lm.collate import batch_by_length
from bridgekd.lm.load import resolve_device, translate_load_errors
from bridgekd.lm.memory import DEFAULT_BATCH_SIZE, run_batches
from bridgekd.progress import Progress, ignore_progress


def embed_texts(
    model: str | Path,
    texts: Sequence[str],
    *,
    device: str,
    batch_size: int | None,
    progress: Progress = ignore_progress,
    label: str = "embed",
) -> NDArray[np.float32]:
    """Return the L2-normalized embeddings [n, d] of the texts, in order.

    model: a Hub id or a folder of sentence-transformers. A folder is loaded without the network.
    Raises InputError if the package is missing or the model cannot be read.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ModuleNotFoundError as exc:
        raise InputError(
            f"An embedding model needs {exc.name}, which is not installed. "
            "Run: pip install 'bridgekd[embed]'"
        ) from exc
    folder = Path(model).expanduser()
    hint = "Use a Hub id or a folder of sentence-transformers."
    with translate_load_errors(f"Embedding model {model} cannot be loaded", hint):
        encoder = SentenceTransformer(
            str(folder if folder.is_dir() else model),
            device=resolve_device(device),
            local_files_only=folder.is_dir(),
            trust_remote_code=False,
        )
    vectors: list[NDArray[np.float32]] = [np.zeros(0, dtype=np.float32)] * len(texts)
    n_done = 0
    progress(label, 0, len(texts))

    def run(batch: list[int]) -> None:
        nonlocal n_done
        rows = encoder.encode(
            [texts[i] for i in batch],
            batch_size=len(batch),
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        for i, vector in zip(batch, rows, strict=True):
            vectors[i] = vector.astype(np.float32)
        n_done += len(batch)
        progress(label, n_done, len(texts))

    lengths = [len(text) for text in texts]
    batches = batch_by_length(lengths, batch_size or DEFAULT_BATCH_SIZE)
    run_batches(str(model), lengths, batches, run, unit="characters")
    return np.stack(vectors) if vectors else np.zeros((0, 0), dtype=np.float32)
