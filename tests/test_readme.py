"""The README is short, and what it and the guides say to type works."""

import re
from pathlib import Path

from ruamel.yaml import YAML

from bridgekd.io.load_recipe import load_recipe
from bridgekd.recipe import TeacherOptions

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def read_blocks(path, language):
    """The code blocks of a document in one language."""
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)


def test_readme_has_at_most_90_lines():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 90


def test_recipe_of_readme_is_valid(tmp_path):
    (block,) = read_blocks(README, "yaml")
    (tmp_path / "my-task.yaml").write_text(block)
    assert load_recipe(tmp_path / "my-task.yaml", []).hard_limit_usd == 10


def test_readme_names_make_targets_and_files_that_exist():
    text = README.read_text(encoding="utf-8")
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"make ([a-z]+)", text)) <= set(targets)
    files = [
        line.split()[0] for block in read_blocks(README, "text") for line in block.splitlines()
    ]
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("http")]
    assert len(files) > 5 and [f for f in (*files, *links) if not (ROOT / f).exists()] == []


def test_every_teacher_in_the_documents_is_valid():
    """Each block of docs/teachers.md loads. Every hosted model that is named by its own name has a
    published price.
    """
    yaml = YAML(typ="safe", pure=True)
    blocks = "".join(read_blocks(ROOT / "docs" / "teachers.md", "yaml"))
    teachers = [yaml.load(f"teacher:{part}")["teacher"] for part in blocks.split("teacher:")[1:]]
    assert len(teachers) > 10
    for settings in teachers:
        assert TeacherOptions(**settings).list_price is not None, settings
