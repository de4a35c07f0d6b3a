"""Speed and memory are no part of any fingerprint."""

import pytest

from bridgekd import api
from bridgekd.recipe import RuntimeOptions

OTHER = {
    "assistant_batch_size": 3,
    "student_batch_size": 5,
    "micro_batch_tokens": 4096,
    "num_processes": 2,
    "precision": "bfloat16",
    "attn_implementation": "sdpa",
    "checkpoint_interval_s": 7,
    "report_to": "[tensorboard]",
}


def plan_folders(task, *overrides):
    plan = api.plan(task / "task.yaml", overrides=overrides, methods=["bridge", "ta_in_the_loop"])
    return [artifact.path.name for artifact in plan.stages]


def test_every_runtime_key_has_another_value_here():
    assert OTHER.keys() == RuntimeOptions.model_fields.keys()


@pytest.mark.parametrize("key", OTHER)
def test_a_runtime_key_renames_no_stage(task, key):
    assert plan_folders(task, f"runtime.{key}={OTHER[key]}") == plan_folders(task)


def test_the_sequences_of_an_update_rename_the_training(task):
    assert plan_folders(task, "student.train.batch_size=8") != plan_folders(task)
