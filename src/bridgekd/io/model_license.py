"""The licence of a base model, where its own card says one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from bridgekd.io.artifact_store import Artifact
from bridgekd.io.sources import get_model_and_revision

LICENSE_KEYS = ("license", "license_name", "license_link")
CARD_FILE = "README.md"
TIMEOUT_S = 5.0


def find_license(model: Artifact) -> dict[str, str]:
    """The licence keys of a model's card: of the one in its folder, or for a Hub id of the one on
    the Hub. Empty where that says none or cannot be reached.
    """
    told = (
        _read_hub_card(model) if model.stage == "hub" else _read_local_card(model.path / CARD_FILE)
    )
    return {key: str(told[key]) for key in LICENSE_KEYS if isinstance(told.get(key), str)}


def _read_hub_card(model: Artifact) -> Mapping[str, object]:
    """One request of a few seconds at most."""
    try:
        from huggingface_hub import errors, model_info
    except ModuleNotFoundError:
        return {}
    name, revision = get_model_and_revision(model)
    no_answer: Any = errors.HTTPError  # type: ignore[attr-defined]  # its HTTP library's own
    try:
        card: Any = model_info(name, revision=revision, timeout=TIMEOUT_S).card_data
    except (no_answer, OSError, ValueError):
        return {}
    return {} if card is None else card.to_dict()


def _read_local_card(card: Path) -> Mapping[str, object]:
    if not card.is_file():
        return {}
    return _front_matter(card.read_text(encoding="utf-8", errors="replace"))


def _front_matter(text: str) -> Mapping[str, object]:
    """The YAML between the two lines of dashes at a card's beginning."""
    start, _, rest = text.partition("---\n")
    if start.strip() or "\n---" not in rest:
        return {}
    try:
        told = YAML(typ="safe", pure=True).load(rest.partition("\n---")[0])
    except YAMLError:
        return {}
    return told if isinstance(told, dict) else {}
