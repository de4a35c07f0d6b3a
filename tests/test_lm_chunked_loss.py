"""Losses and gradients in chunks equal those of all logits at once."""

import warnings
from dataclasses import dataclass, replace

import peft
import pytest
import torch

from bridgekd.lm.chunked_loss import compute_chunked_loss, split_targets
from bridgekd.lm.divergence import DivergenceOptions
from bridgekd.lm.forward import compute_states_at
from bridgekd.lm.load import LocalModel
from bridgekd.lm.objectives import TokenBatch
from bridgekd.lm.objectives.forward_kl import OBJECTIVE as FORWARD_KL
from bridgekd.lm.objectives.nll import OBJECTIVE as NLL
from bridgekd.lm.reference_model import ReferenceModel
from tiny_models import FAMILIES, bent_model, tiny_model, tiny_tokenizer

N_TOKENS = 300
BENT = ("gemma2", "granite", "cohere")
IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 15, 16], [17, 18, 19, 20, 21, 22]])
POSITIONS = torch.tensor([1, 2, 6, 7, 8, 9, 10, 13, 15])
BATCH = {
    "targets": torch.tensor([7, 8, 12, 13, 14, 15, 16, 19, 21]),
    "weights": torch.tensor([1.0, 2.0, 1.0, 0.0, 1.0, 0.5, 1.0, 1.0, 3.0]),
    "sequence_ids": torch.tensor([0, 0, 1, 1, 1, 1, 1, 2, 2]),
}


def build(name, seed=0):
    if name == "untied":
        config = tiny_model("llama", N_TOKENS).config
        config.tie_word_embeddings = False
        torch.manual_seed(seed)
        return type(tiny_model("llama", N_TOKENS))(config)
    if name == "head_adapter":
        config = peft.LoraConfig(r=2, target_modules=["q_proj", "lm_head"])
        with warnings.catch_warnings(action="ignore", category=FutureWarning):
            return peft.get_peft_model(build("untied"), config)
    return bent_model(name, N_TOKENS) if name in BENT else tiny_model(name, N_TOKENS, seed)


@dataclass
class Batch:
    """What a reference model reads of a micro-batch."""

    positions: torch.Tensor
    forward_arguments: dict
    targets: torch.Tensor


def gradients(model, loss):
    model.zero_grad()
    (3.0 * loss).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def compute_whole(model, objective, options, reference):
    def select(m):
        return m(input_ids=IDS).logits.flatten(0, 1)[POSITIONS]

    with torch.no_grad():
        others = None if reference is None else select(reference)
    return objective.compute_loss(
        TokenBatch(select(model), **BATCH, reference_logits=others), options
    )


def compute_in_chunks(model, objective, options, reference, max_logits):
    arguments = {"input_ids": IDS, "use_cache": False}
    _, states, head = compute_states_at(model, POSITIONS, arguments)
    tokenizer = tiny_tokenizer("byte_level")
    read = None
    if reference is not None:
        other = ReferenceModel(LocalModel(reference, tokenizer, "cpu"), (), N_TOKENS)
        batch = Batch(POSITIONS, arguments, BATCH["targets"])
        read, _ = other.read_tokens(batch, batch)
    sizes = []

    def compute_loss(logits, chunk):
        sizes.append(logits.numel())
        fields = {name: value[chunk] for name, value in BATCH.items()}
        others = None if read is None else read(chunk)
        return objective.compute_loss(
            TokenBatch(logits, **fields, reference_logits=others), options
        )

    chunks = split_targets(objective, BATCH["sequence_ids"], model, max_logits=max_logits)
    return compute_chunked_loss(head, states, chunks, compute_loss), sizes


@pytest.mark.parametrize("name", [*FAMILIES, *BENT, "untied", "head_adapter"])
@pytest.mark.parametrize("objective", [NLL, FORWARD_KL], ids=lambda objective: objective.name)
def test_chunks_change_no_loss_and_no_gradient(name, objective):
    model, options = build(name), None
    reference = None
    if objective.needs_reference_model:
        reference, options = tiny_model("llama", N_TOKENS, 1), DivergenceOptions()
    whole = compute_whole(model, objective, options, reference)
    expected = gradients(model, whole)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == expected.keys()
    for max_logits in (4 * N_TOKENS, 2**24):
        loss, sizes = compute_in_chunks(model, objective, options, reference, max_logits)
        assert max(sizes) <= max_logits
        torch.testing.assert_close(loss, whole)
        found = gradients(model, loss)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, atol=1e-5, rtol=1e-4)


def test_a_batch_without_targets_has_zero_gradients():
    model = build("untied")
    _, states, head = compute_states_at(
        model, POSITIONS[:0], {"input_ids": IDS, "use_cache": False}
    )
    empty = {name: value[:0] for name, value in BATCH.items()}
    chunks = split_targets(NLL, empty["sequence_ids"], model)
    loss = compute_chunked_loss(
        head,
        states,
        chunks,
        lambda logits, chunk: NLL.compute_loss(TokenBatch(logits, **empty), None),
    )
    found = gradients(model, loss)
    assert not loss.detach() and found.keys() == {n for n, _ in model.named_parameters()}
    assert not any(value.any() for value in found.values())


def split(sequence_ids, n, *, is_sum):
    objective = replace(NLL, is_sum_over_tokens=is_sum)
    chunks = split_targets(
        objective, torch.tensor(sequence_ids), build("llama"), max_logits=n * N_TOKENS
    )
    return [(c.start, min(c.stop, len(sequence_ids))) for c in chunks]


def test_sequences_are_split_only_for_a_sum_over_tokens():
    ids = [0, 0, 1, 1, 1, 1, 1, 2, 4]
    assert split(ids, 4, is_sum=True) == [(0, 4), (4, 8), (8, 9)]
    assert split(ids, 4, is_sum=False) == [(0, 2), (2, 7), (7, 9)]
    assert split(ids, 7, is_sum=False) == [(0, 7), (7, 9)]
    assert split(ids, 99, is_sum=False) == split(ids, 99, is_sum=True) == [(0, 9)]
    assert split([], 4, is_sum=False) == [(0, 0)]
