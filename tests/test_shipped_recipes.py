"""Every recipe of recipes/ loads, and plans on its data or on rows in the columns of the Hub."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import pytest

from bridgekd import api
from bridgekd.io.load_recipe import load_recipe
from conftest import write_jsonl

FOLDER = Path(__file__).parents[1] / "recipes"
README = (FOLDER / "README.md").read_text()
RECIPES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
OPTIONS = {"A": "one", "B": "two", "C": "three", "D": "four"}
HUB = {  # rows in the columns of the Hub's data sets
    "medqa": lambda i: {"question": f"Which {i}?", "answer": "two", "options": OPTIONS,
                        "answer_idx": "B"},
    "casehold": lambda i: {"context": f"See {i} (<HOLDING>)", "label": i % 5,
                           "endings": ["v", "w", "x", "y", "z"]},
    "fomc": lambda i: {"sentence": f"Rates rise by {i}.", "year": 2001, "label": i % 3},
}  # fmt: skip

OWN = ("vllm",)  # the user's own files: planned where servers are tested


def commands(name):
    """Return the commands in the README for a recipe."""
    section = README.split(f"`{name}.yaml`\n", 1)[1].split("\n## ", 1)[0]
    return re.search(r"```sh\n(.*?)```", section, re.DOTALL)[1].splitlines()


def planned(name, folder, overrides=()):
    shutil.copy(FOLDER / f"{name}.yaml", folder)
    plan = api.plan(folder / f"{name}.yaml", overrides=overrides)
    asked = plan.train_cost
    assert (
        asked.n_queries > 0
        and 0 < asked.unpaid.ci_low < asked.unpaid.ci_high <= asked.unpaid.maximum
    )
    assert plan.remaining_microusd >= asked.unpaid.maximum + plan.eval_cost.unpaid.ci_high


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_commands_in_readme(name):
    assert load_recipe(FOLDER / f"{name}.yaml").name == name
    assert commands(name)[-2:] == [f"bridgekd plan {name}.yaml", f"bridgekd run {name}.yaml"]


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in {*HUB, *OWN}])
def test_recipe_plans_on_files_of_its_commands(name, tmp_path):
    if "BRIDGEKD_DATA" not in os.environ:
        pytest.skip("BRIDGEKD_DATA names no folder of published data sets")
    with chdir(tmp_path):
        for command in commands(name)[:-2]:
            program, script, *arguments = shlex.split(os.path.expandvars(command))
            missing = [a for a in arguments if a.endswith(".gz") and not Path(a).is_file()]
            if missing:
                pytest.skip(f"BRIDGEKD_DATA has no {missing[0]}")
            assert program == "python" and script.startswith("convert/")
            subprocess.run([sys.executable, FOLDER / script, *arguments], check=True)
    planned(name, tmp_path)


@pytest.mark.parametrize("name", HUB)
def test_recipe_of_the_hub_plans_on_rows_in_its_columns(name, tmp_path):
    """The Hub cannot be reached in a test, so generated rows have the columns of its data sets."""
    write_jsonl(tmp_path / "rows.jsonl", [HUB[name](i) for i in range(400)])
    write_jsonl(tmp_path / "ins.jsonl", [{"instruction": "Say a.", "input": "", "output": "a"}])
    files = ["data.train=rows.jsonl", "data.test=rows.jsonl", "student.instruction_data=ins.jsonl"]
    planned(name, tmp_path, [*files, "evaluate.teacher_queries=20"])
