"""The examples in the docstrings of the public functions are run, on a finished small run."""

import doctest

import bridgekd
from bridgekd import api


def test_examples_of_public_functions_are_correct(tiny, monkeypatch):
    recipe = tiny.rename(tiny.with_name("task.yaml"))
    monkeypatch.chdir(recipe.parent)
    bridgekd.run("task.yaml", methods=["bridge", "direct"])
    result = doctest.testmod(api, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 8 and result.failed == 0
