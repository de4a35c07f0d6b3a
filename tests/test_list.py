"""`bridgekd list` shows every variant: bridgekd's own and those of installed packages."""

import importlib
import json
import os
import pkgutil
import subprocess
import sys

import pytest

from bridgekd.cli.documents import VariantList
from bridgekd.cli.list_variants import REGISTRIES
from bridgekd.cli.main import main

PLUGIN = """
from dataclasses import replace
from bridgekd.selection.strategies.random_order import STRATEGY as RANDOM

STRATEGY = replace(RANDOM, name="lucky", summary="Draws lucky numbers.", paper="[A Paper] 2026")
"""


@pytest.fixture
def plugin(tmp_path):
    """A folder that holds an installed package with a strategy."""
    (tmp_path / "lucky.py").write_text(PLUGIN)
    info = tmp_path / "lucky-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lucky\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[bridgekd.strategies]\nlucky = lucky:STRATEGY\n")
    return tmp_path


def run_with(folder, *arguments):
    """Run the command in a process that finds the packages in a folder."""
    path = os.pathsep.join([str(folder), *sys.path])
    script = "import sys; from bridgekd.cli.main import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("variant_type", REGISTRIES)
def test_every_variant_is_listed_with_its_summary_and_paper(variant_type, capsys):
    registry = REGISTRIES[variant_type]
    modules = [
        importlib.import_module(f"{registry.package}.{module.name}")
        for module in pkgutil.iter_modules(importlib.import_module(registry.package).__path__)
    ]
    own = [getattr(m, registry.constant) for m in modules if hasattr(m, registry.constant)]
    assert own
    assert main(["list", variant_type]) == 0
    lines = capsys.readouterr().out.splitlines()
    for variant in own:
        (line,) = (line for line in lines if line.split(" ")[0] == variant.name)
        assert variant.summary in line and variant.paper in line


@pytest.mark.parametrize("variant_type", REGISTRIES)
def test_list_as_json_has_the_same_variants(variant_type, capsys):
    assert main(["list", variant_type, "--json"]) == 0
    listed = VariantList.model_validate_json(capsys.readouterr().out)
    assert listed.variant_type == variant_type
    assert [(v.name, v.summary, v.paper) for v in listed.variants] == [
        (v.name, v.summary, v.paper) for v in REGISTRIES[variant_type]
    ]


def test_installed_plugin_is_listed(plugin):
    done = run_with(plugin, "list", "strategies")
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("lucky "))
    assert "Draws lucky numbers." in line and "[A Paper] 2026" in line
    listed = json.loads(run_with(plugin, "list", "strategies", "--json").stdout)["variants"]
    assert listed[-1]["name"] == "lucky" and len(listed) > 1


def test_broken_plugin_is_one_sentence_and_only_where_it_is_needed(plugin):
    (plugin / "lucky.py").write_text("import nothing_there\n")
    done = run_with(plugin, "list", "strategies")
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr
    assert "'lucky' is registered as lucky:STRATEGY, which cannot be imported" in done.stderr
    assert run_with(plugin, "list", "methods").returncode == 0


def test_plugin_under_another_name_is_one_sentence(plugin):
    (plugin / "lucky.py").write_text(PLUGIN.replace("lucky", "chance"))
    done = run_with(plugin, "list", "strategies")
    assert done.returncode == 2
    assert "has the name 'chance', but is registered as 'lucky'" in done.stderr


def test_unknown_type_names_the_known_ones(capsys):
    assert main(["list", "strategy"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and "strategies" in printed.err
