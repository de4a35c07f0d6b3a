"""A killed training resumes and ends with the results of an uninterrupted one."""

import json
import multiprocessing
import os
import signal

import pytest
import torch
from safetensors.torch import load_file

from bridgekd import lm
from bridgekd.lm.checkpoint import STATE_FILE
from bridgekd.lm.objectives import OBJECTIVES
from bridgekd.lm.orders import ORDERS
from bridgekd.recipe import LoraOptions, RuntimeOptions, TrainOptions
from bridgekd.variants import VariantRef
from test_lm_training_loop import ROWS, metrics
from tiny_models import tiny_model, write_tiny

ALWAYS = RuntimeOptions(checkpoint_interval_s=0.0)
EASY_FIRST = ORDERS.resolve(VariantRef(name="easy_first"))
TRAIN = TrainOptions(batch_size=4, learning_rate=1e-2, n_evaluations=3)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("base"), "lfm2", "word_level")


def rising(local, longest_target):
    """Return a score that falls after the second evaluation."""
    rising.values.append(len(rising.values))
    return float([1, 3, 2][len(rising.values) - 1])


def tune(base, out, work, *, runtime=ALWAYS, train=TRAIN, progress=lambda *_: None, **kwargs):
    rising.values = []
    job = lm.TrainingJob(
        base, ROWS, out, train, n_updates=9, seed=1, device="cpu", runtime=runtime, workdir=work,
        **kwargs,
    )  # fmt: skip
    return lm.fine_tune(job, progress)


def dying(base, out, work, at, kwargs):
    """Train until update `at`, then die as with kill -9."""

    def die(label, update, total):
        if update == at:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    tune(base, out, work, progress=die, **kwargs)


def killed(base, out, work, at, **kwargs):
    process = multiprocessing.get_context("fork").Process(
        target=dying, args=(base, out, work, at, kwargs)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def losses(out):
    return [(line["update"], line["loss"], line["validation"]) for line in metrics(out)]


@pytest.mark.parametrize(("options", "file"), [
    ({"order": EASY_FIRST}, "model.safetensors"),
    ({"lora": LoraOptions(r=2, dropout=0.1)}, "adapter_model.safetensors"),
])  # fmt: skip
def test_killed_training_ends_with_weights_of_uninterrupted_one(base, tmp_path, options, file):
    tune(base, tmp_path / "calm", tmp_path / "w", **options)
    for at in (3, 7):
        killed(base, tmp_path / "killed", tmp_path / "work", at, **options)
    log = tune(base, tmp_path / "killed", tmp_path / "work", **options)
    assert log.resumed_at == 6
    calm, resumed = (load_file(tmp_path / n / file) for n in ("calm", "killed"))
    assert all(torch.equal(calm[name], resumed[name]) for name in calm)
    assert losses(tmp_path / "calm") == losses(tmp_path / "killed")


def test_best_weights_survive_later_kill(base, tmp_path):
    tune(base, tmp_path / "calm", tmp_path / "w", validate=rising)
    killed(base, tmp_path / "killed", tmp_path / "work", 8, validate=rising)
    rising.values = [0, 0]
    job = lm.TrainingJob(
        base, ROWS, tmp_path / "killed", TRAIN, n_updates=9, seed=1, device="cpu", runtime=ALWAYS,
        workdir=tmp_path / "work", validate=rising,
    )  # fmt: skip
    log = lm.fine_tune(job)
    assert (log.resumed_at, log.best_update) == (7, 6)
    assert log.validations == ((3, 1.0), (6, 3.0), (9, 2.0))
    files = [tmp_path / n / "model.safetensors" for n in ("calm", "killed")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_incomplete_checkpoint_is_not_resumed(base, tmp_path):
    killed(base, tmp_path / "out", tmp_path / "work", 5)
    (tmp_path / "work" / "checkpoint-4" / STATE_FILE).unlink()
    assert tune(base, tmp_path / "out", tmp_path / "work").resumed_at == 0


@pytest.mark.parametrize(
    "other",
    [{"train": TRAIN.model_copy(update={"learning_rate": 1e-3})}, {"order": EASY_FIRST}],
)
def test_checkpoint_of_other_training_is_not_resumed(base, tmp_path, other):
    killed(base, tmp_path / "out", tmp_path / "work", 5)
    assert tune(base, tmp_path / "out", tmp_path / "work", **other).resumed_at == 0


def test_checkpoints_follow_interval_and_are_removed_at_end(base, tmp_path):
    seen = []

    def look(label, update, total):
        seen.append(sorted(p.name for p in (tmp_path / "work").glob("checkpoint-*")))

    tune(base, tmp_path / "out", tmp_path / "work", progress=look)
    assert seen[6] == ["checkpoint-5"] and not list((tmp_path / "work").iterdir())
    seen.clear()
    tune(base, tmp_path / "out", tmp_path / "work", progress=look, runtime=RuntimeOptions())
    assert not any(seen)


def test_seconds_cover_all_attempts(base, tmp_path):
    killed(base, tmp_path / "out", tmp_path / "work", 8)
    file = tmp_path / "work" / "checkpoint-7" / STATE_FILE
    state = json.loads(file.read_text())
    file.write_text(json.dumps(state | {"seconds": state["seconds"] + 1000}))
    log = tune(base, tmp_path / "out", tmp_path / "work")
    assert 1000 < log.seconds < 1100 and log.tokens_per_s > 10


def test_the_state_of_an_objective_resumes(base, tmp_path):
    n_tokens = len(lm.load_model(base, device="cpu").tokenizer)
    tiny_model("lfm2", n_tokens, 1).save_pretrained(tmp_path / "reference")
    lm.load_model(base, device="cpu").tokenizer.save_pretrained(tmp_path / "reference")
    taid = VariantRef.model_validate({"name": "interpolated_kl", "alpha": 1.0, "beta": 0.5})
    options = {
        "objective": OBJECTIVES.resolve(taid),
        "reference": lm.ReferenceSpec(tmp_path / "reference", None),
    }
    tune(base, tmp_path / "whole", tmp_path / "w1", **options)
    killed(base, tmp_path / "out", tmp_path / "w2", 4, **options)
    (file,) = (tmp_path / "w2").glob(f"**/{STATE_FILE}")
    state = json.loads(file.read_text())["objective_state"]
    assert state.keys() == {"t", "momentum", "loss"} and state["t"] > 0.5
    tune(base, tmp_path / "out", tmp_path / "w2", **options)
    whole, out = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "out"))
    assert all(torch.equal(whole[name], out[name]) for name in whole)
