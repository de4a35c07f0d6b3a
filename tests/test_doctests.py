"""The examples in docstrings are true."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import bridgekd

ROOT = Path(bridgekd.__file__).parent
FILES = [path for path in sorted(ROOT.rglob("*.py")) if ">>>" in path.read_text()]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_examples_of_module_are_true(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    done = doctest.testmod(import_module(".".join(["bridgekd", *parts])))
    assert done.attempted and not done.failed
