"""A training in several processes has the results of one process."""

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


def first_weight(local, longest_target):
    """Return a score; a module-level function, so that it can be pickled."""
    return float(next(iter(local.model.parameters())).sum())


def failing(local, longest_target):
    raise InputError("evaluation failed")


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


def assert_same(first, second):
    weights = [load_file(folder / "model.safetensors") for folder in (first, second)]
    losses = [[line["loss"] for line in metrics(folder)] for folder in (first, second)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert all(torch.allclose(weights[0][k], weights[1][k], atol=1e-4) for k in weights[0])


def test_two_processes_of_launcher_have_losses_of_one(base, alone, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(SCRIPT))
    args = [
        "--num_processes=2", "--multi_gpu", "--num_machines=1", "--mixed_precision=no",
        "--dynamo_backend=no", "--num_cpu_threads_per_process=1", "--main_process_port=0",
    ]  # fmt: skip
    completed = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *args, script, base, tmp_path / "out"],
        env=os.environ | PATHS, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert completed.returncode == 0, completed.stderr[-2000:]
    assert completed.stdout.count("processes: 2") == 2
    assert_same(alone, tmp_path / "out")


def test_started_processes_report_progress_and_log(base, alone, tmp_path, monkeypatch):
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


def test_input_error_of_one_process_ends_all_with_its_message(base, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", PATHS["PYTHONPATH"])
    with pytest.raises(InputError, match=r"^evaluation failed$"):
        tune(base, tmp_path / "out", runtime=RuntimeOptions(num_processes=2), validate=failing)


def dying(local, longest_target):
    print("out of luck", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def test_dead_process_is_named_with_its_last_lines(base, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", PATHS["PYTHONPATH"])
    with pytest.raises(StoppedError, match=r"process 0 of 2 \(exit status -9\) died .*out of luck"):
        tune(base, tmp_path / "out", runtime=RuntimeOptions(num_processes=2), validate=dying)


def test_workers_end_when_parent_process_is_killed(base, tmp_path):
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


def test_more_processes_than_sequences_raise_error(base, tmp_path):
    with pytest.raises(InputError, match="5 processes cannot share updates of 4 sequences"):
        tune(base, tmp_path / "out", runtime=RuntimeOptions(num_processes=5))
