"""The documentation site builds without a warning, and its reference has everything in the code."""

import html
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import bridgekd
from bridgekd.cli.main import app
from bridgekd.grading.graders import GRADERS
from bridgekd.io.load_recipe import load_recipe
from bridgekd.lm.objectives import OBJECTIVES
from bridgekd.methods import METHODS
from bridgekd.rationales import SELECTORS
from bridgekd.recipe import Recipe
from bridgekd.selection.difficulty import MEASURES
from bridgekd.selection.strategies import STRATEGIES
from bridgekd.teacher.transports import TRANSPORTS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), ROOT / "README.md", ROOT / "recipes" / "README.md"]
REGISTRIES = (METHODS, STRATEGIES, MEASURES, OBJECTIVES, SELECTORS, TRANSPORTS, GRADERS)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    return folder


def read_page(site, name):
    """The text of a page, without its markup."""
    page = (site / name / "index.html").read_text(encoding="utf-8")
    return html.unescape(re.sub(r"<[^>]+>", "", page))


def list_commands(command, name="bridgekd"):
    children = getattr(command, "commands", {}).values()
    return [name, *(line for c in children for line in list_commands(c, f"{name} {c.name}"))]


def test_reference_has_every_command_and_option(site):
    text = read_page(site, "reference/cli")
    names = list_commands(typer.main.get_command(app))
    assert "bridgekd ledger import" in names and [n for n in names if n not in text] == []
    assert "--budgets" in text and "bridgekd compare [OPTIONS] RECIPE" in text


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.package)
def test_reference_has_every_variant(site, registry):
    text = read_page(site, "reference/variants")
    for variant in registry:
        assert variant.summary.replace("`", "") in text
        assert all(f"{option}: " in text for option in variant.options.model_fields)


def test_reference_has_every_part_of_the_recipe(site):
    text = read_page(site, "reference/recipe")
    assert all(f"\n{key}\n" in text for key in Recipe.model_fields)
    assert "attn_implementation" in text and "assistant.warm_up_train" in text
    assert "Number of training processes, one per GPU" in text


def test_reference_has_every_public_name(site):
    text = read_page(site, "reference/api")
    assert [name for name in bridgekd.__all__ if f"bridgekd.{name}" not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_shell_blocks_have_known_options(page):
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line.partition(" #")[0] for block in blocks for line in block.splitlines()]
    for line in lines:
        words = shlex.split(line.partition("|")[0].partition(" < ")[0])
        if words and words[0] == "bridgekd":
            command, options = find_command(words[1:]), {"--help", "--version"}
            options |= {option for p in command.params for option in p.opts}
            used = {word.partition("=")[0] for word in words if word.startswith("--")}
            assert used <= options, line


def find_command(words):
    """The command that a command line runs."""
    command = typer.main.get_command(app)
    for word in words:
        command = getattr(command, "commands", {}).get(word, command)
    assert command.name is not None, words
    return command


def test_recipes_in_guide_are_valid(tmp_path):
    blocks = re.findall(r"```yaml\n(.*?)```", (DOCS / "data.md").read_text(), re.DOTALL)
    (tmp_path / "my-task.yaml").write_text(blocks[0])
    assert len(blocks) == 1 and load_recipe(tmp_path / "my-task.yaml", []).budget.usd == 5


def test_guide_on_data_has_every_answer_type():
    text = (DOCS / "data.md").read_text(encoding="utf-8")
    assert [name for name in GRADERS.list_names() if f"| `{name}` |" not in text] == []


def test_promises_name_tests_that_exist():
    text = (DOCS / "concepts.md").read_text(encoding="utf-8")
    names = re.findall(r"`((?:contracts/)?test_\w+\.py)`", text)
    assert len(names) > 15 and [n for n in names if not (ROOT / "tests" / n).is_file()] == []


def test_design_has_one_line_for_every_folder_of_the_package():
    tree = (
        (DOCS / "design.md").read_text(encoding="utf-8").split("```text\n")[1].partition("```")[0]
    )
    package = Path(bridgekd.__file__).parent
    folders = {p.parent for p in package.rglob("*.py")} - {package}
    lines = tree.splitlines()
    for folder in folders:
        assert len([line for line in lines if f"── {folder.name}/ " in line]) == 1, folder


def test_functions_in_methods_page_exist():
    text = (DOCS / "methods.md").read_text(encoding="utf-8")
    folders = "selection|stages|stats|lm|cost|report|grading|prompts"
    names = set(re.findall(rf"`((?:{folders})\.[\w.]+)`", text))
    assert len(names) > 25
    for name in names:
        pkgutil.resolve_name(f"bridgekd.{name}")


def test_no_page_loads_anything_from_another_server(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(
            r'<(?:script|img|link rel="stylesheet")[^>]+(?:src|href)="(https?:[^"]+)', text
        )
        assert not loaded, page
