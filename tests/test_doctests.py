"""Every example in a docstring is run."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import bridgekd

ROOT = Path(bridgekd.__file__).parent
MODULES = [
    ".".join(("bridgekd", *path.relative_to(ROOT).with_suffix("").parts))
    for path in sorted(ROOT.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]
NEEDS_A_RUN = "bridgekd.api"


@pytest.mark.parametrize("module", sorted({*MODULES} - {NEEDS_A_RUN}))
def test_examples_of_a_module_are_correct(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(import_module(module), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0 and result.failed == 0
