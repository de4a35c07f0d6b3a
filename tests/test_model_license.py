"""A base's licence: what its own card says, and nothing where it says none."""

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
def test_only_the_front_matter_s_licence_counts(tmp_path, card, expected):
    (tmp_path / "README.md").write_text(card)
    assert find_license(Artifact("model", "model:1", tmp_path)) == expected


def test_a_model_without_a_card_has_no_known_licence(tmp_path):
    assert find_license(Artifact("model", "model:1", tmp_path)) == {}
    assert find_license(Artifact("model", "model:1", tmp_path / "gone")) == {}
