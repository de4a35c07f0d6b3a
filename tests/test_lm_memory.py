"""Batches fit into free memory and are halved when memory runs out."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bridgekd import lm
from bridgekd.errors import InputError
from bridgekd.lm import memory
from bridgekd.lm.forward import MAX_LOGITS, compute_states_at
from bridgekd.recipe import LoraOptions, RuntimeOptions
from bridgekd.records import Example, Message
from bridgekd.selection.difficulty.entropy import MEASURE as ENTROPY
from bridgekd.selection.difficulty.margin import MEASURE as MARGIN
from test_lm_training_loop import metrics, tune
from tiny_models import write_tiny

PROMPTS = [(Message("user", "Who holds " + "the red box " * (k % 4) + "?"),) for k in range(12)]
QUESTIONS = [Example(str(k), "Who holds " + "the box " * (k % 4) + "?", "Ann") for k in range(12)]
CLOSED = [Example(str(k), "Who holds " + "it " * k + "?", "Ann", ("Ann", "Bob")) for k in range(6)]


class Scarce:
    """Memory that holds at most `n_rows` rows of a batch."""

    def __init__(self, model, n_rows):
        self.n_rows, self.refused = n_rows, []
        model.register_forward_pre_hook(self.check, with_kwargs=True)

    def check(self, module, args, kwargs):
        n = len(kwargs["input_ids"])
        if n > self.n_rows:
            self.refused.append(n)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB\nmore")


@pytest.fixture
def local(tmp_path):
    return lm.load_model(write_tiny(tmp_path / "m", "llama", "word_level"), device="cpu")


USES = {
    "generate": lambda m, n: lm.generate_texts(m, PROMPTS, max_new_tokens=6, batch_size=n),
    "sample": lambda m, n: lm.sample_texts(
        m, PROMPTS, 3, max_new_tokens=6, batch_size=n, temperature=1.0
    ),
    "loss": lambda m, n: lm.score_examples(m, QUESTIONS, batch_size=n).difficulty,
    "margin": lambda m, n: lm.score_examples(m, QUESTIONS, measure=MARGIN, batch_size=n).difficulty,
    "choices": lambda m, n: lm.score_examples(m, CLOSED, measure=ENTROPY, batch_size=n).difficulty,
    "confidence": lambda m, n: lm.estimate_confidence(
        m, [(q, "Ann") for q in QUESTIONS], measure="p_true", batch_size=n
    ),
}


@pytest.mark.parametrize("name", USES)
def test_out_of_memory_halves_batches_and_changes_no_result(local, name):
    expected = USES[name](local, 8)
    scarce = Scarce(local.model, 4)
    result = USES[name](local, 8)
    assert scarce.refused and min(scarce.refused) > 4
    if name in ("generate", "sample"):
        assert result == expected
    else:
        np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["generate", "loss", "confidence"])
def test_too_little_memory_for_one_row_raises_input_error(local, name):
    Scarce(local.model, 0)
    match = r"Memory does not hold .*/m with a batch of 1 sequence of \d+ tokens \(CUDA out of mem"
    with pytest.raises(InputError, match=match):
        USES[name](local, 8)


def test_other_errors_are_not_out_of_memory(local):
    local.model.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        USES["generate"](local, 8)


def test_failed_batch_makes_later_batches_smaller():
    seen = []

    def run(batch):
        seen.append(len(batch))
        if len(batch) > 3:
            raise MemoryError

    memory.run_batches("m", [5] * 24, [list(range(8)), list(range(8, 16)), [16, 17]], run)
    assert seen == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2, 2]


def test_free_memory_sets_default_batch_size(local):
    cost = memory.estimate_token_cost(local)
    row = 100 * (cost.forward + cost.logits)
    sizes = [
        memory.choose_scoring_batch(lm.LocalModel(local.model, local.tokenizer, "cpu", n), 100)
        for n in (0, 20 * row, 10**12)
    ]
    assert sizes[0] == 1 < sizes[1] < sizes[2] == memory.DEFAULT_BATCH_SIZE


@pytest.mark.parametrize("name", USES)
def test_chosen_batch_changes_no_result(local, name):
    poor = lm.LocalModel(local.model, local.tokenizer, "cpu", 0)
    scarce = Scarce(local.model, 10**6)
    result, expected = USES[name](poor, None), USES[name](local, None)
    assert not scarce.refused
    np.testing.assert_array_equal(result, expected) if name in ("generate", "sample") else (
        np.testing.assert_allclose(result, expected, atol=1e-5)
    )


def test_micro_batch_of_training_fits_free_memory(tmp_path):
    base = write_tiny(tmp_path / "base", "llama", "word_level")
    local = lm.load_model(base, device="cpu", trainable=True)
    n_weights = sum(p.numel() for p in local.model.parameters())
    n_output = local.model.get_output_embeddings().weight.numel()
    cost = memory.estimate_token_cost(local)
    fixed = 12 * n_weights + 8 * n_output + memory.LOGIT_BYTES * MAX_LOGITS
    tokens = 64 * (cost.training + 60 * cost.attention)
    frees = {"rich": 10**12, "poor": 2 * (fixed + tokens), "broke": 12 * n_weights}
    logs = {
        name: tune(
            base, tmp_path / name, free_bytes=n, runtime=RuntimeOptions(checkpoint_interval_s=1e5)
        )
        for name, n in frees.items()
    }
    assert logs["rich"].micro_tokens is None and not logs["rich"].gradient_checkpointing
    assert logs["poor"].micro_tokens == 64 and not logs["poor"].gradient_checkpointing
    assert logs["broke"].gradient_checkpointing
    lines = [metrics(tmp_path / name) for name in logs]
    assert (
        len({log.n_updates for log in logs.values()})
        == len({log.n_tokens for log in logs.values()})
        == 1
    )
    for other in lines[1:]:
        for name in ("loss", "grad_norm"):  # of the first update, before differences grow
            assert other[0][name] == pytest.approx(lines[0][0][name], rel=1e-5)
        assert [line["loss"] for line in other] == pytest.approx(
            [line["loss"] for line in lines[0]], rel=1e-4
        )


def test_a_training_whose_optimizer_does_not_fit_raises_input_error_before_it_starts(tmp_path):
    base = write_tiny(tmp_path / "base", "llama", "word_level")
    local = lm.load_model(base, device="cpu", trainable=True)
    n = 12 * sum(p.numel() for p in local.model.parameters())
    with pytest.raises(
        InputError, match=r"Memory does not hold a training of .*/base: .* Use lora"
    ):
        tune(base, tmp_path / "out", free_bytes=n - 1)
    assert tune(base, tmp_path / "lora", free_bytes=n - 1, lora=LoraOptions(r=2)).n_updates == 6


def measure_kept_bytes(local, n_rows, length):
    """Return what autograd keeps of a forward pass, without the weights."""
    weights = {p.untyped_storage().data_ptr() for p in local.model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    ids = torch.randint(5, 25, (n_rows, length))
    mask = torch.ones_like(ids)
    mask[0, -3:] = 0
    arguments = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        compute_states_at(local.model, torch.tensor([0]), arguments)
    return sum(n for n, _ in kept.values())


@pytest.mark.parametrize("lora", [None, LoraOptions(r=2)], ids=["all weights", "lora"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_estimated_activations_are_those_that_autograd_keeps(tmp_path, family, attention, lora):
    base = write_tiny(tmp_path, family, "word_level")
    local = lm.load_model(base, device="cpu", trainable=True, attention=attention, lora=lora)
    cost = memory.estimate_token_cost(local)
    for n_rows, length in ((8, 40), (1, 400)):
        estimate = n_rows * length * (cost.training + length * cost.attention)
        assert 0.9 < estimate / measure_kept_bytes(local, n_rows, length) < 2


def test_a_cpu_gets_no_larger_micro_batch_than_is_useful(tmp_path):
    base = write_tiny(tmp_path, "llama", "word_level")
    local = replace(lm.load_model(base, device="cpu", trainable=True), free_bytes=10**15)
    cost = memory.estimate_token_cost(local)
    n = memory.choose_micro_tokens(local, 1, 10)
    assert n <= memory.MAX_ACTIVATION_BYTES / (cost.training + 10 * cost.attention) < 2 * n


def test_control_group_limits_count_and_cached_files_are_free(tmp_path):
    group = tmp_path / "slice" / "run"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("1000\n")
    (group / "memory.current").write_text("900\n")
    (group / "memory.stat").write_text("anon 600\ninactive_file 250\n")
    (tmp_path / "slice" / "memory.max").write_text("max\n")
    (tmp_path / "memory.limit_in_bytes").write_text("5000\n")
    (tmp_path / "memory.usage_in_bytes").write_text("1000\n")
    assert memory.read_cgroup_free(group) == [350, 4000]


def test_free_memory_is_measured():
    assert 0 < memory.get_free_bytes("cpu") < 2**50
