"""Imports point down, and pure folders touch nothing outside the program."""

import ast
import subprocess
import sys
from pathlib import Path

import bridgekd

ROOT = Path(bridgekd.__file__).parent
LAYERS = (  # from the top: a module imports from its own layer or from those below
    {"__init__", "__main__", "cli"},
    {"api"},
    {"plans", "parallel", "exports"},
    {"comparison"},
    {"methods"},
    {"runs"},
    {"report"},
    {"stages"},
    {"teacher"},
    {"ledger", "inference_server"},
    {"io"},
    {"api_client", "lm"},
    {"cost", "grading", "rationales", "selection", "targets"},
    {"recipe", "stats", "prompts", "throughput"},
    {"variants", "records", "paths", "errors", "messages", "progress", "rng", "__version__"},
)
LEVEL = {name: -depth for depth, layer in enumerate(LAYERS) for name in layer}
PURE = ("cost", "grading", "rationales", "selection", "stats", "targets")
MAY_IMPORT_TORCH = ("lm", "sandbox")
OUTSIDE = (
    "bridgekd.io",
    "bridgekd.ledger",
    "bridgekd.teacher",
    "bridgekd.lm",
    "bridgekd.inference_server",
)


def place(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path):
    """Names of modules imported anywhere in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "bridgekd":
                yield from (f"bridgekd.{alias.name}" for alias in node.names)
            else:
                yield node.module


FILES = sorted(ROOT.rglob("*.py"))


def test_imports_point_down():
    wrong = []
    for path in FILES:
        here = place(path)
        if here == "sandbox":
            continue
        for name in imports(path):
            parts = name.split(".")
            if parts[0] != "bridgekd" or len(parts) < 2 or parts[1] in (here, "sandbox"):
                continue
            if LEVEL[parts[1]] > LEVEL[here]:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_pure_folders_touch_nothing():
    banned = {"torch", "transformers", "sqlite3", "openai", "pathlib", "os", "pyarrow", "time"}
    wrong = [
        f"{path.name} imports {name}"
        for folder in PURE
        for path in (ROOT / folder).rglob("*.py")
        for name in imports(path)
        if name.split(".")[0] in banned or name.startswith(OUTSIDE)
    ]
    assert not wrong


def test_only_lm_and_the_sandbox_import_torch():
    wrong = [
        str(path)
        for path in FILES
        if place(path) not in MAY_IMPORT_TORCH
        and any(n.split(".")[0] in ("torch", "transformers", "peft") for n in imports(path))
    ]
    assert not wrong


def test_only_the_command_line_imports_the_sandbox():
    wrong = [
        str(path)
        for path in FILES
        if place(path) not in ("cli", "sandbox")
        and any(n.startswith("bridgekd.sandbox") for n in imports(path))
    ]
    assert not wrong


def test_planning_needs_no_torch(task):
    script = (
        "import sys; from bridgekd.cli.main import main; main(['plan', 'task.yaml']) and "
        "sys.exit(2); "
        "sys.exit('torch' in sys.modules or 'openai' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, cwd=task)
    assert done.returncode == 0


def test_files_and_functions_stay_small():
    wrong = []
    for path in FILES:
        text = path.read_text()
        if text.count("\n") > 400:
            wrong.append(f"{path.name} has more than 400 lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                n_lines = node.end_lineno - node.lineno + 1
                wrong += [f"{path.name}: {node.name} has {n_lines} lines"] * (n_lines > 60)
    assert not wrong
