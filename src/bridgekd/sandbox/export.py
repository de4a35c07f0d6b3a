"""Write the sandbox as files of a user: data, instruction data, models and a complete recipe."""

import json
import shutil
from collections.abc import Iterable
from importlib.resources import as_file, files
from pathlib import Path

from bridgekd.errors import InputError
from bridgekd.io.disk import translate_disk_errors
from bridgekd.records import Example
from bridgekd.sandbox.world import generate_examples

N_POOL, N_VALIDATION, N_TEST, N_INSTRUCTIONS = 4000, 200, 600, 1000
TRAIN_SEED, TEST_SEED = 1000, 2000  # seeds 0 and 1 were used to develop the base models
QUICK = {"n_pool": 100, "n_validation": 10, "n_test": 30, "n_instructions": 60}
ASSISTANTS = ("assistant-small", "assistant-middle", "assistant-large")


def export_world(
    folder: Path,
    *,
    n_pool: int = N_POOL,
    n_validation: int = N_VALIDATION,
    n_test: int = N_TEST,
    n_instructions: int = N_INSTRUCTIONS,
) -> Path:
    """Write the world to `folder` and return the path of the recipe.

    The same arguments give the same bytes. Train and test have no common question. Raises
    InputError if the folder contains another recipe of the same name, or cannot be written.
    """
    with translate_disk_errors(folder, "folder"):
        return _write_world(folder, n_pool, n_validation, n_test, n_instructions)


def _write_world(
    folder: Path, n_pool: int, n_validation: int, n_test: int, n_instructions: int
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    package = files("bridgekd.sandbox")
    recipe = package.joinpath("recipe.yaml").read_text()
    recipe = recipe.replace("validation_size: 200", f"validation_size: {n_validation}")
    path = folder / "sandbox.yaml"
    if path.exists() and path.read_bytes() != recipe.encode():
        raise InputError(f"{path} was changed. Export to another folder, or move this file.")
    train = generate_examples(n_pool + n_validation, TRAIN_SEED)
    test = generate_examples(n_test, TEST_SEED, exclude={e.question for e in train})
    _write_examples(folder / "train.jsonl", train)
    _write_examples(folder / "test.jsonl", test)
    instructions = package.joinpath("instruct.jsonl").read_text().splitlines(True)
    (folder / "instruct.jsonl").write_text("".join(instructions[:n_instructions]))
    for name in ("student", *ASSISTANTS):
        with as_file(package.joinpath("models", name)) as model:
            _copy_files(model, folder / "models" / name)
    path.write_text(recipe)
    return path


def _copy_files(source: Path, target: Path) -> None:
    """Copy the files of a folder. `shutil.copytree` would hide the number of a disk error."""
    target.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        shutil.copyfile(file, target / file.name)


def _write_examples(path: Path, examples: Iterable[Example]) -> None:
    columns = ("id", "question", "answer", "domain")
    rows = ({name: getattr(example, name) for name in columns} for example in examples)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
