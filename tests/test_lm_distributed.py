"""Several processes share a training and end where one alone ends."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from psutil import process_iter
from safetensors.torch import load_file

import bridgekd
from bridgekd import lm
from bridgekd.errors import InputError, StoppedError
from bridgekd.progress import ignore_progress
from bridgekd.recipe import RuntimeOptions, TrainOptions
from test_lm_training_loop import ROWS, metrics
from tiny_models import write_tiny

TRAIN = TrainOptions(batch_size=4, learning_rate=1e-2, n_evaluations=2)
HOMES = [str(Path(bridgekd.__file__).parents[1]), str(Path(__file__).parent)]
PATHS = {"PYTHONPATH": os.pathsep.join(HOMES)}
SCRIPT = """
    import sys
    from test_lm_distributed import RuntimeOptions, tune
    log = tune(sys.argv[1], sys.argv[2], runtime=RuntimeOptions())
    print("processes:", log.n_processes)
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("base"), "lfm2", "word_level")


def first_weight(local):
    """A judge that any process can be handed."""
    return float(next(iter(local.model.parameters())).sum())


def failing(local):
    raise InputError("the judge is ill")


def tune(base, out, *, runtime, n_updates=6, progress=ignore_progress, **kwargs):
    job = lm.TrainingJob(
        base, ROWS, Path(out), TRAIN, n_updates=n_updates, seed=1, device="cpu", runtime=runtime,
        **kwargs,
    )  # fmt: skip
    return lm.fine_tune(job, progress)


@pytest.fixture(scope="module")
def alone(base, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone")
    tune(base, out, runtime=RuntimeOptions())
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
        "--num_processes=2", "--multi_gpu", "--num_machines=1", "--mixed_precision=no",
        "--dynamo_backend=no", "--num_cpu_threads_per_process=1", "--main_process_port=0",
    ]  # fmt: skip
    found = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *how, script, base, tmp_path / "out"],
        env=os.environ | PATHS, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-2000:]
    assert found.stdout.count("processes: 2") == 2
    same(alone, tmp_path / "out")


def test_processes_started_here_tell_their_progress_and_their_log(
    base, alone, tmp_path, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", PATHS["PYTHONPATH"])
    steps = []
    log = tune(
        base, tmp_path / "out", runtime=RuntimeOptions(num_processes=2), validate=first_weight,
        progress=lambda *step: steps.append(step), workdir=tmp_path / "work",
    )  # fmt: skip
    assert steps == [("train", k, 6) for k in range(7)]
    assert (log.n_processes, log.n_updates, len(log.validations)) == (2, 6, 2)
    assert [x["loss"] for x in metrics(tmp_path / "out")] == pytest.approx(
        [x["loss"] for x in metrics(alone)], rel=1e-4
    )
    assert not list((tmp_path / "work").iterdir())


def test_a_process_that_refuses_ends_all_with_its_sentence(base, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", PATHS["PYTHONPATH"])
    with pytest.raises(InputError, match=r"^the judge is ill$"):
        tune(base, tmp_path / "out", runtime=RuntimeOptions(num_processes=2), validate=failing)


def dying(local):
    print("out of luck", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_dies_is_named_with_its_last_lines(base, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", PATHS["PYTHONPATH"])
    with pytest.raises(StoppedError, match=r"process 0 of 2 \(exit status -9\) died .*out of luck"):
        tune(base, tmp_path / "out", runtime=RuntimeOptions(num_processes=2), validate=dying)


def test_workers_end_when_the_process_that_started_them_is_killed(base, tmp_path):
    script = """
        import os, signal, sys
        from test_lm_distributed import RuntimeOptions, tune
        tune(sys.argv[1], sys.argv[2], runtime=RuntimeOptions(num_processes=2), n_updates=10**5,
             progress=lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    """
    command = [sys.executable, "-c", textwrap.dedent(script), base, tmp_path / "out"]
    assert subprocess.run(command, env=os.environ | PATHS).returncode == -signal.SIGKILL
    deadline = time.monotonic() + 60
    while is_running(str(tmp_path / "out")):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def is_running(word):
    return any(word in " ".join(p.info["cmdline"] or ()) for p in process_iter(["cmdline"]))


def test_more_processes_than_sequences_are_refused(base, tmp_path):
    with pytest.raises(InputError, match="5 processes cannot share updates of 4 sequences"):
        tune(base, tmp_path / "out", runtime=RuntimeOptions(num_processes=5))
