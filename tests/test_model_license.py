"""The license of a base model is the one in its card, if the card has one."""

import pytest

from bridgekd.io.artifact_store import Artifact
from bridgekd.io.model_license import find_license


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nlicense: apache-2.0\ntags: [x]\n---\n# A\n", {"license": "apache-2.0"}),
        (
            "---\nlicense: other\nlicense_name: qwen\nlicense_link: https://x.example/l\n---\n",
            {"license": "other", "license_name": "qwen", "license_link": "https://x.example/l"},
        ),
        ("---\nlicense: [a, b]\n---\n", {}),
        ("---\ntags: [x]\n---\nlicense: mit\n", {}),
        ("# A card\n\n---\nlicense: mit\n---\n", {}),
        ("---\nlicense: {broken\n---\n", {}),
        ("---\n- a list\n---\n", {}),
        ("---\nlicense: mit\n", {}),
        ("", {}),
    ],
)
def test_license_is_read_from_front_matter(tmp_path, card, expected):
    (tmp_path / "README.md").write_text(card)
    assert find_license(Artifact("model", "model:1", tmp_path)) == expected


def test_model_without_card_has_no_known_license(tmp_path):
    assert find_license(Artifact("model", "model:1", tmp_path)) == {}
    assert find_license(Artifact("model", "model:1", tmp_path / "gone")) == {}
