"""The license of a base model, as stated in its model card."""

from bridgekd.io.artifact_store import Artifact
from bridgekd.io.sources import get_model_and_revision

LICENSE_KEYS = ("license", "license_name", "license_link")
CARD_FILE = "README.md"
TIMEOUT_S = 5.0


def find_license(model: Artifact) -> dict[str, str]:
    """Return the license keys of the model card in the model's folder or on the Hub.

    The result is empty if the card has none, cannot be parsed, or the Hub cannot be reached.
    """
    try:
        from huggingface_hub import errors, model_info
        from huggingface_hub.repocard import metadata_load
        from yaml import YAMLError  # type: ignore[import-untyped]
    except ModuleNotFoundError:
        return {}
    fields: dict[str, object] = {}
    try:
        if model.stage == "hub":
            name, revision = get_model_and_revision(model)
            card = model_info(name, revision=revision, timeout=TIMEOUT_S).card_data
            fields = {} if card is None else card.to_dict()  # type: ignore[no-untyped-call]
        else:
            fields = metadata_load(model.path / CARD_FILE) or {}
    except (errors.HTTPError, OSError, ValueError, YAMLError):  # type: ignore[attr-defined]
        pass
    return {key: value for key in LICENSE_KEYS if isinstance(value := fields.get(key), str)}
