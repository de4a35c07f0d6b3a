"""What a person brings: files, model folders and Hub ids, named by content so that moving them
redoes nothing.
"""

import hashlib
import re
from pathlib import Path

from bridgekd.errors import InputError
from bridgekd.io.artifact_store import Artifact

_FULL_HASH_LIMIT = 256 * 2**20  # files up to this size are hashed whole, larger ones by samples
_SAMPLE_SIZE = 2**20
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_HUB_DATA = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(/[\w.-]+)?(:[\w.-]+)?")
DATA_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".txt", ".xlsx", ".gz")


def resolve_data(where: str, folder: Path) -> Artifact:
    """A data file, relative to the recipe's folder, or a Hub data set id
    (`owner/name/config:split`).
    """
    path = folder / Path(where).expanduser()
    if path.is_file():
        return Artifact("file", f"file:{_hash_file(path)}", path)
    if path.suffix.lower() in DATA_SUFFIXES or not _HUB_DATA.fullmatch(where):
        raise InputError(f"no such data file: {path}; mend the path in the recipe")
    return Artifact("hub", f"hub:{where}", Path(where))


def resolve_model(where: str, folder: Path, revision: str | None) -> Artifact:
    """A model folder, relative to the recipe's folder, or else a Hub model id at a revision."""
    path = folder / Path(where).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file() and not (path / "adapter_config.json").is_file():
            raise InputError(
                f"{path} holds no model: it has neither config.json nor adapter_config.json"
            )
        return Artifact("model", f"model:{_hash_files(path)}", path)
    if where.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(where):
        raise InputError(
            f"no such model folder: {path}; give a folder or a Hub id such as owner/name"
        )
    pinned = f"{where}@{revision or 'main'}"
    return Artifact("hub", f"hub:{pinned}", Path(pinned))


def get_model_and_revision(model: Artifact) -> tuple[str, str | None]:
    """What to load for a model artifact: its folder, or a Hub id and its revision."""
    if model.stage != "hub":
        return str(model.path), None
    name, _, revision = str(model.path).rpartition("@")
    return name, revision


def _hash_files(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != ".md"):
        digest.update(f"{file.relative_to(folder)} {_hash_file(file)}\n".encode())
    return digest.hexdigest()[:24]


def _hash_file(path: Path) -> str:
    """sha256 of the content; of a very large file, of its size and 64 evenly spaced samples."""
    size = path.stat().st_size
    with open(path, "rb") as stream:
        if size <= _FULL_HASH_LIMIT:
            return hashlib.file_digest(stream, "sha256").hexdigest()[:24]
        digest = hashlib.sha256(str(size).encode())
        for k in range(64):
            stream.seek((size - _SAMPLE_SIZE) * k // 63)
            digest.update(stream.read(_SAMPLE_SIZE))
    return digest.hexdigest()[:24]
