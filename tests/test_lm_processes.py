"""Several processes share a training and end where one alone ends."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import bridgekd
from bridgekd import lm
from bridgekd.config import RuntimeOptions, Train
from bridgekd.errors import BadInput, Stopped
from bridgekd.lm.processes import FOLDER, follow, free_port
from bridgekd.lm.task import Task
from bridgekd.variants import VariantRef
from test_lm_finetune import ROWS, metrics
from tiny_models import write_tiny

TRAIN = Train(batch_size=4, learning_rate=1e-2, evaluations=2)
HOMES = [str(Path(bridgekd.__file__).parents[1]), str(Path(__file__).parent)]
PATHS = {"PYTHONPATH": os.pathsep.join(HOMES)}
SCRIPT = """
    import sys
    from test_lm_processes import tune
    tune(sys.argv[1], sys.argv[2], runtime=None)
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("base"), "lfm2", "word_level")


def first_weight(local):
    """A judge that any process can be handed."""
    return float(next(iter(local.model.parameters())).sum())


def failing(local):
    raise BadInput("the judge is ill")


def tune(base, out, *, runtime, **kwargs):
    return lm.fine_tune(
        base, ROWS, Path(out), TRAIN, n_updates=6, seed=1, device="cpu", runtime=runtime, **kwargs
    )


@pytest.fixture(scope="module")
def alone(base, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone")
    tune(base, out, runtime=None)
    return out


def same(one, two):
    weights = [load_file(folder / "model.safetensors") for folder in (one, two)]
    losses = [[line["loss"] for line in metrics(folder)] for folder in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert all(torch.allclose(weights[0][k], weights[1][k], atol=1e-4) for k in weights[0])


def test_under_a_launcher_two_processes_have_the_losses_of_one(base, alone, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(SCRIPT))
    how = [
        "--num_processes=2", "--cpu", "--num_machines=1", "--mixed_precision=no",
        "--dynamo_backend=no", "--num_cpu_threads_per_process=1",
        f"--main_process_port={free_port()}",
    ]  # fmt: skip
    found = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *how, script, base, tmp_path / "out"],
        env=os.environ | PATHS, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-2000:]
    same(alone, tmp_path / "out")


def test_processes_started_here_tell_their_progress_and_their_log(
    base, alone, tmp_path, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", PATHS["PYTHONPATH"])
    steps = []
    log = tune(
        base, tmp_path / "out", runtime=RuntimeOptions(num_processes=2), validate=first_weight,
        progress=lambda *step: steps.append(step), unfinished=tmp_path / "work",
    )  # fmt: skip
    assert steps == [("train", k, 6) for k in range(7)]
    assert (log.n_processes, log.n_updates, len(log.validations)) == (2, 6, 2)
    assert [x["loss"] for x in metrics(tmp_path / "out")] == pytest.approx(
        [x["loss"] for x in metrics(alone)], rel=1e-4
    )
    assert not list((tmp_path / "work").iterdir())


def test_a_process_that_refuses_ends_all_with_its_sentence(base, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", PATHS["PYTHONPATH"])
    with pytest.raises(BadInput, match=r"^the judge is ill$"):
        tune(base, tmp_path / "out", runtime=RuntimeOptions(num_processes=2), validate=failing)


def test_a_process_that_dies_is_named_with_its_last_words(base, tmp_path):
    task = Task(
        base, ROWS, tmp_path, TRAIN, 6, 1, "cpu", None, None, None, "train",
        RuntimeOptions(num_processes=2), tmp_path, VariantRef(name="nll"),
    )  # fmt: skip
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "worker-1.log").write_text("one\nSegmentation fault\n")
    commands = ['print(\'{"done": 1, "total": 6}\')', "raise SystemExit(9)"]
    workers = [
        subprocess.Popen([sys.executable, "-c", c], stdout=subprocess.PIPE, text=True)
        for c in commands
    ]
    with pytest.raises(Stopped, match=r"process 1 of 2 ended with 9: one \| Segmentation fault; "):
        follow(workers, task, lambda *_: None)
    for worker in workers:
        worker.wait()
        worker.stdout.close()


def test_more_processes_than_sequences_are_refused(base, tmp_path):
    with pytest.raises(BadInput, match="5 processes cannot share updates of 4 sequences"):
        tune(base, tmp_path / "out", runtime=RuntimeOptions(num_processes=5))
