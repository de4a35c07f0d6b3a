"""The wheel: what it contains, and that it works in an environment outside the clone."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import bridgekd

ROOT = Path(__file__).parents[1]
MAX_BYTES = 8_000_000


def run_command(*command, **options):
    """The output of a command that must succeed, run without the paths of the tests."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, env=environment,
        **options,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built by the backend that is installed here: a build needs no network."""
    folder = tmp_path_factory.mktemp("dist")
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", folder]
    run_command(sys.executable, "-m", "pip", "wheel", "-q", *options, ROOT)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def home(wheel, tmp_path_factory):
    """An environment with the wheel. Its dependencies are those of this environment."""
    folder = tmp_path_factory.mktemp("home")
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python]
    run_command(*pip, "install", "-q", "--no-deps", "--no-index", wheel)
    (site,) = (folder / "env" / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder


def test_wheel_contains_the_package_alone(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {
        "bridgekd",
        f"bridgekd-{bridgekd.__version__}.dist-info",
    }
    here = ROOT / "src" / "bridgekd"
    files = [p for p in here.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    packed = {name for name in names if name.startswith("bridgekd/")}
    assert packed == {f"bridgekd/{p.relative_to(here).as_posix()}" for p in files}


def test_wheel_is_small(wheel):
    assert wheel.stat().st_size <= MAX_BYTES


def test_installed_command_knows_its_version_and_place(home):
    command = home / "env" / "bin" / "bridgekd"
    assert run_command(command, "--version", cwd=home) == f"bridgekd {bridgekd.__version__}\n"
    script = "import bridgekd; print(bridgekd.__file__)"
    place = run_command(home / "env" / "bin" / "python", "-c", script, cwd=home)
    assert Path(place.strip()).is_relative_to(home)


def test_installed_command_plans_an_exported_world(home):
    command = home / "env" / "bin" / "bridgekd"
    run_command(command, "sandbox", "export", "world", cwd=home)
    plan = run_command(command, "plan", "world/sandbox.yaml", cwd=home)
    assert "query_teacher" in plan and "4,000" in plan


def test_installed_command_runs_a_quick_demo(home):
    shown = run_command(home / "env" / "bin" / "bridgekd", "demo", "--quick", cwd=home)
    assert "Student, BRIDGE" in shown and "Student, direct" in shown
    assert len(list((home / "demo-quick" / "runs").glob("report-*/report.html"))) == 1
