"""The licence of a base model, where its own card says one."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from bridgekd.edges.sources import model_and_revision
from bridgekd.edges.store import Artifact

KEYS = ("license", "license_name", "license_link")
CARD = "README.md"


def licence_of(model: Artifact) -> dict[str, str]:
    """The licence keys of a model's card: of the one in its folder, or for a Hub id of the one on
    the Hub. Empty where that says none or cannot be reached.
    """
    card = _from_hub(model) if model.stage == "hub" else model.path / CARD
    if card is None or not card.is_file():
        return {}
    told = _front_matter(card.read_text(encoding="utf-8", errors="replace"))
    return {key: str(told[key]) for key in KEYS if isinstance(told.get(key), str)}


def _from_hub(model: Artifact) -> Path | None:
    """The card, fetched like the model itself; one try of a few seconds."""
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError
    except ModuleNotFoundError:
        return None
    name, revision = model_and_revision(model)
    try:
        return Path(hf_hub_download(name, CARD, revision=revision, etag_timeout=5))
    except (HfHubHTTPError, OSError, ValueError):  # no network is an OSError
        return None


def _front_matter(text: str) -> dict[str, Any]:
    """The YAML between the two lines of dashes at a card's beginning."""
    start, _, rest = text.partition("---\n")
    if start.strip() or "\n---" not in rest:
        return {}
    try:
        told = YAML(typ="safe", pure=True).load(rest.partition("\n---")[0])
    except YAMLError:
        return {}
    return told if isinstance(told, dict) else {}
