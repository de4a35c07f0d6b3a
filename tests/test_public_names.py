"""What `import bridgekd` offers: the names, each with a docstring, and what the import costs."""

import inspect
import subprocess
import sys

import pytest

import bridgekd
from bridgekd import errors
from bridgekd.cli.main import main

ERRORS = (
    "BridgekdError DiskFullError HardLimitError InputError OverbilledError ServerUnavailableError "
    "StoppedError TeacherUnavailableError"
)
RESULTS = "ExportResult LoadedModels PilotResult Plan RunResult"
FUNCTIONS = "export load_models plan run run_pilot"
PARTS = "Ledger Progress Recipe Store"
PUBLIC = " ".join((ERRORS, RESULTS, FUNCTIONS, PARTS)).split()


def test_public_names_are_these():
    assert sorted(bridgekd.__all__) == sorted(PUBLIC)
    assert set(PUBLIC) <= set(dir(bridgekd))


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_is_what_it_says_and_has_its_own_docstring(name):
    value = getattr(bridgekd, name)
    assert value.__name__ == name and value.__module__.startswith("bridgekd.")
    assert value.__doc__ and not value.__doc__.startswith(f"{name}(")  # a dataclass writes that one


def test_every_error_class_is_public():
    classes = {name for name, _ in inspect.getmembers(errors, inspect.isclass)}
    assert classes == set(ERRORS.split())


def test_unknown_name_is_no_attribute():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = bridgekd.nothing


def test_import_loads_no_library():
    heavy = "{'torch', 'openai', 'pydantic', 'numpy', 'rich', 'typer'}"
    script = f"import sys, bridgekd; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_version_is_printed(option, capsys):
    assert main([option]) == 0
    assert capsys.readouterr().out == f"bridgekd {bridgekd.__version__}\n"
