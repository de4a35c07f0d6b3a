"""The hashes of the user's files and model folders, which are the fingerprints of these sources."""

import hashlib
from pathlib import Path

from bridgekd.errors import InputError

_FULL_HASH_LIMIT = 256 * 2**20  # of larger files only samples are hashed
_SAMPLE_SIZE = 2**20


def hash_source(path: Path) -> str:
    """Return the fingerprint of a file (`file:...`) or of a model folder (`model:...`).

    Raises OSError if it cannot be read.
    """
    return f"model:{_hash_files(path)}" if path.is_dir() else f"file:{_hash_file(path)}"


def check_source(path: Path, fingerprint: str) -> None:
    """Raise InputError if a file or model folder has another fingerprint now. Others pass."""
    if not fingerprint.startswith(("file:", "model:")):
        return
    try:
        is_same = hash_source(path) == fingerprint
    except OSError:
        is_same = False
    if not is_same:
        raise InputError(
            f"{path} was changed or removed during the run. No result of the changed file was "
            "stored. To use it as it is now, or after you restored it, run the same command again."
        )


def _hash_files(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != ".md"):
        digest.update(f"{file.relative_to(folder)} {_hash_file(file)}\n".encode())
    return digest.hexdigest()[:24]


def _hash_file(path: Path) -> str:
    """Return the SHA-256 of a file; of a very large one, of its size and 64 spaced samples."""
    size = path.stat().st_size
    with open(path, "rb") as stream:
        if size <= _FULL_HASH_LIMIT:
            return hashlib.file_digest(stream, "sha256").hexdigest()[:24]
        digest = hashlib.sha256(str(size).encode())
        for k in range(64):
            stream.seek((size - _SAMPLE_SIZE) * k // 63)
            digest.update(stream.read(_SAMPLE_SIZE))
    return digest.hexdigest()[:24]
