"""A tiny model trained, asked and scored on a GPU, beside the same on the CPU: `make test-gpu`."""

import json

import numpy as np
import pytest
import torch

from bridgekd import lm
from bridgekd.recipe import TrainOptions
from bridgekd.records import Example, Message, TargetSpan, TrainingSequence
from tiny_models import write_tiny

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]
NAMES = ("Ann", "Bob", "the fox", "the dog")
PROMPTS = [(Message("user", "Who holds " + "the box " * n + "?"),) for n in (1, 2, 3, 4)]
ROWS = [
    TrainingSequence(
        str(i), PROMPTS[i], (TargetSpan(f"{name} holds the red box .\nAnswer: {name}"),)
    )
    for i, name in enumerate(NAMES)
]
EXAMPLES = [Example(name, "Who holds the red box ?", name) for name in NAMES]
TRAIN = TrainOptions(
    batch_size=4, learning_rate=1e-2, warmup_ratio=0.0, lr_scheduler_type="constant"
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folders of one training on each device."""
    base = write_tiny(tmp_path_factory.mktemp("base"), "lfm2", "word_level")
    folders = {device: tmp_path_factory.mktemp(device) for device in ("cpu", "cuda")}
    for device, folder in folders.items():
        lm.fine_tune(lm.TrainingJob(base, ROWS, folder, TRAIN, n_updates=80, seed=0, device=device))
    return folders


def losses(folder):
    lines = (folder / "training_log.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def test_training_on_gpu_has_losses_of_cpu(trained):
    cpu, gpu = (losses(trained[device])[:20] for device in ("cpu", "cuda"))
    assert gpu == pytest.approx(cpu, rel=1e-2)


@pytest.mark.parametrize("source", ["cpu", "cuda"])
def test_texts_of_gpu_are_texts_of_cpu(trained, source):
    texts = {}
    for device in ("cpu", "cuda"):
        local = lm.load_model(trained[source], device=device, as_stored=True)
        texts[device] = lm.generate_texts(local, PROMPTS, max_new_tokens=16, batch_size=4)
    assert texts["cuda"] == texts["cpu"]
    assert [text.split()[-1] for text in texts["cuda"]] == ["Ann", "Bob", "fox", "dog"]


@pytest.mark.parametrize("as_stored, tolerance", [(True, 1e-4), (False, 0.2)])
def test_scores_of_gpu_are_scores_of_cpu_up_to_rounding(trained, as_stored, tolerance):
    scored = {}
    for device in ("cpu", "cuda"):
        local = lm.load_model(trained["cpu"], device=device, as_stored=as_stored)
        scored[device] = lm.score_examples(local, EXAMPLES, batch_size=2)
    cpu, gpu = scored["cpu"], scored["cuda"]
    np.testing.assert_allclose(gpu.difficulty, cpu.difficulty, atol=tolerance, rtol=tolerance)
    np.testing.assert_allclose(gpu.embeddings, cpu.embeddings, atol=tolerance)
