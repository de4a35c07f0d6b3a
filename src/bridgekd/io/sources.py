"""The user's files, model folders and Hub ids as source artifacts.

The fingerprint of a file is the hash of its content, so a moved file does not repeat any stage.
"""

import json
import re
from pathlib import Path

from bridgekd.api_client.environment import check_environment
from bridgekd.errors import InputError
from bridgekd.io.artifact_store import Artifact
from bridgekd.io.source_hash import hash_source
from bridgekd.paths import resolve_path

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_HUB_DATA = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(/[\w.-]+)?(:[\w.-]+)?")
_CONTEXT_FIELDS = ("max_position_embeddings", "n_positions", "max_seq_len")
HUB_URL = "https://huggingface.co"
DATA_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".txt", ".xlsx", ".gz")


def resolve_data(source: str, folder: Path) -> Artifact:
    """Return the artifact of a data file or of a Hub data set (`owner/name/config:split`).

    A path is relative to `folder`. Raises InputError if there is no such file, or if the
    environment lets no client reach the Hub.
    """
    path = resolve_path(folder, source)
    if path.is_file():
        return Artifact("file", hash_source(path), path)
    if path.suffix.lower() in DATA_SUFFIXES or not _HUB_DATA.fullmatch(source):
        raise InputError(f"There is no data file {path}. Fix the path in the recipe.")
    return _make_hub_artifact(source)


def resolve_model(source: str, folder: Path, revision: str | None) -> Artifact:
    """Return the artifact of a model folder or of a Hub model at a revision.

    A path is relative to `folder`. Raises InputError if there is no model, or if the environment
    lets no client reach the Hub.
    """
    path = resolve_path(folder, source)
    if path.is_dir():
        if not (path / "config.json").is_file() and not (path / "adapter_config.json").is_file():
            raise InputError(
                f"{path} is not a model folder: it has no config.json and no adapter_config.json."
            )
        return Artifact("model", hash_source(path), path)
    if source.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(source):
        raise InputError(
            f"There is no model folder {path}. Give a folder or a Hub id such as owner/name."
        )
    return _make_hub_artifact(f"{source}@{revision or 'main'}")


def read_context_length(model: Artifact) -> int | None:
    """Return how many tokens a model of a folder can read, if its config.json says so."""
    try:
        config = json.loads((model.path / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):  # a Hub id, an adapter, a broken folder
        return None
    lengths = [config.get(name) for name in _CONTEXT_FIELDS] if isinstance(config, dict) else []
    return next((length for length in lengths if type(length) is int and length > 0), None)


def get_model_and_revision(model: Artifact) -> tuple[str, str | None]:
    """Return the folder of a model artifact and None, or its Hub id and revision."""
    if model.stage != "hub":
        return str(model.path), None
    name, _, revision = str(model.path).rpartition("@")
    return name, revision


def _make_hub_artifact(name: str) -> Artifact:
    check_environment(HUB_URL)
    return Artifact("hub", f"hub:{name}", Path(name))
