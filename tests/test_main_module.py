"""`python -m bridgekd` is the command."""

import runpy

import pytest

import bridgekd


def test_module_runs_as_the_command(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["bridgekd", "--version"])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_module("bridgekd", run_name="__main__")
    assert not exit_.value.code and bridgekd.__version__ in capsys.readouterr().out
