"""The scripts of benchmarks/real: every task plans, and a table comes from saved runs."""

import json
import os
import sys
from pathlib import Path

import pytest

from bridgekd import api

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks" / "real"))

from compare_methods import SavedArm, SavedRun, format_summary, format_table, read_runs
from tasks import TASKS, write_task

MODELS = ("smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct")


def read(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("name", TASKS)
def test_task_plans_with_recorded_answers_and_without_test_questions_in_the_pool(name, tmp_path):
    if "BRIDGEKD_DATA" not in os.environ:
        pytest.skip("BRIDGEKD_DATA names no folder of published data sets")
    for model in MODELS:
        (tmp_path / model).mkdir()
        (tmp_path / model / "config.json").write_text("{}")
    recipe = write_task(
        name, data=Path(os.environ["BRIDGEKD_DATA"]), models=tmp_path, folder=tmp_path / name,
        device="cpu", seed=0,
    )  # fmt: skip
    plan = api.plan(recipe, methods=["bridge", "direct_full"])
    assert plan.needs_consent is False and all(p.n_unrecorded == 0 for p in plan.purchases)
    pool, test = (read(tmp_path / name / f"{part}.jsonl") for part in ("train", "test"))
    questions = {row["question"].partition(" At the end of the ")[0] for row in test}
    assert not questions & {row["question"].partition(" At the end of the ")[0] for row in pool}
    assert 200 < len(pool) <= 400 and 100 <= len(test) <= 400
    assert read(tmp_path / name / "instruct.jsonl")[0].keys() == {"instruction", "input", "output"}


def save(folder, seed, **correct):
    arms = [
        SavedArm(
            arm=name, title=name.title(), budget="20%", correct=bits, words=(9,) * len(bits),
            n_queries=80, spend_usd=0.5, seconds=60, is_trained=True,
        )
        for name, bits in correct.items()
    ]  # fmt: skip
    ids = tuple(map(str, range(40)))
    run = SavedRun(
        task="letters", seed=seed, methods=tuple(correct), chance=0.25, chance_rule="always b",
        n_pool=400, machine="one core", ids=ids, arms=arms,
    )  # fmt: skip
    (folder / f"letters-{seed}.json").write_text(run.model_dump_json())


def test_table_has_the_mean_of_all_seeds_and_the_difference_to_direct(tmp_path):
    save(tmp_path, 1, direct="10" * 20, bridge="1110" * 10)
    save(tmp_path, 0, direct="01" * 20, bridge="1111" * 10)
    runs = read_runs(tmp_path, "letters")
    assert [run.seed for run in runs] == [0, 1]
    lines = format_table(runs).splitlines()
    assert "Chance 25.0 % (always b)" in lines[2] and "seeds 0, 1" in lines[2]
    assert lines[6].startswith("| Direct | 50.0 (") and "| 80 | 0.5000 | 60 |" in lines[6]
    assert lines[7].startswith("| Bridge | 87.5 (") and "| +37.5 (" in lines[7]


def test_summary_has_a_column_per_task_and_an_empty_cell_for_a_missing_arm(tmp_path):
    for name, arms in (
        ("a", {"direct": "10" * 20}),
        ("b", {"direct": "01" * 20, "bridge": "1" * 40, "x": "1" * 40}),
    ):
        (tmp_path / name).mkdir()
        save(tmp_path / name, 0, **arms)
    lines = format_summary([read_runs(tmp_path / name, "letters") for name in "ab"]).splitlines()
    assert [len(line.split("|")) for line in lines] == [5] * 5
    assert lines[2] == "| chance | 25.0 | 25.0 |" and lines[4].startswith("| Bridge |  | 100.0 (")
