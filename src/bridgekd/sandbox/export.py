"""Writes the sandbox as a user's own files would look: data, instructions, models and a complete
recipe.
"""

import json
import shutil
from collections.abc import Iterable
from importlib.resources import as_file, files
from pathlib import Path

from bridgekd.errors import InputError
from bridgekd.records import Example
from bridgekd.sandbox.world import generate_examples

N_POOL, N_VALIDATION, N_TEST, N_INSTRUCTIONS = 4000, 200, 600, 1000
TRAIN_SEED, TEST_SEED = 1000, 2000  # the base models were made while looking at seeds 0 and 1
QUICK = {"n_pool": 300, "n_validation": 30, "n_test": 60, "n_instructions": 150}
ASSISTANTS = ("assistant-small", "assistant-middle", "assistant-large")


def export_world(
    folder: Path,
    *,
    n_pool: int = N_POOL,
    n_validation: int = N_VALIDATION,
    n_test: int = N_TEST,
    n_instructions: int = N_INSTRUCTIONS,
) -> Path:
    """Writes the world into `folder` and returns the recipe's path. The same arguments give the
    same bytes.

    Train and test share no question. Raises InputError where the folder holds another recipe of
    that name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    recipe = files("bridgekd.sandbox").joinpath("recipe.yaml").read_text()
    recipe = recipe.replace("validation_size: 200", f"validation_size: {n_validation}")
    path = folder / "sandbox.yaml"
    if path.exists() and path.read_text() != recipe:
        raise InputError(f"{path} was changed by hand; export into another folder, or move it away")
    train = generate_examples(n_pool + n_validation, TRAIN_SEED)
    test = generate_examples(n_test, TEST_SEED, exclude={e.question for e in train})
    _write(folder / "train.jsonl", (_row(e) for e in train))
    _write(folder / "test.jsonl", (_row(e) for e in test))
    instructions = files("bridgekd.sandbox").joinpath("instruct.jsonl").read_text().splitlines(True)
    (folder / "instruct.jsonl").write_text("".join(instructions[:n_instructions]))
    for name in ("student", *ASSISTANTS):
        with as_file(files("bridgekd.sandbox").joinpath("models", name)) as model:
            shutil.copytree(model, folder / "models" / name, dirs_exist_ok=True)
    path.write_text(recipe)
    return path


def _row(example: Example) -> dict[str, object]:
    return {
        "id": example.id,
        "question": example.question,
        "answer": example.answer,
        "domain": example.domain,
    }


def _write(path: Path, rows: Iterable[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
