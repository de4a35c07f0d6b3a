"""With CI=true a skipped test fails the suite, unless it needs a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

MODULE = "import pytest\n\npytest.skip('no browser', allow_module_level=True)\n"
TEST = "import pytest\n\n{}\ndef test_a():\n    pytest.skip('no browser')\n"
XFAIL = "import pytest\n\n@pytest.mark.xfail\ndef test_a():\n    assert False\n"


def outcome(folder, text, ci):
    """The exit code and the output of a suite of one file."""
    (folder / "test_a.py").write_text(text)
    environment = os.environ | {"CI": ci, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "conftest", "test_a.py"]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("text", [TEST.format(""), MODULE])
def test_skipped_test_fails_in_ci_and_nowhere_else(tmp_path, text):
    code, said = outcome(tmp_path, text, "true")
    assert code and "no browser. With CI=true only GPU tests may be skipped." in said
    assert outcome(tmp_path, text, "")[0] in (0, 5)


@pytest.mark.parametrize("text", [TEST.format("@pytest.mark.gpu"), XFAIL])
def test_gpu_test_and_expected_failure_pass_in_ci(tmp_path, text):
    assert outcome(tmp_path, text, "true")[0] == 0
