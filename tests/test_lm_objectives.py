"""The objectives equal naive loops."""

import pytest
import torch

from bridgekd.lm.objectives import TokenBatch
from bridgekd.lm.objectives.forward_kl import compute_forward_kl
from bridgekd.lm.objectives.nll import compute_nll


def draw_batch(reference=None, **fields):
    torch.manual_seed(0)
    batch = {
        "logits": torch.randn(4, 7),
        "targets": torch.tensor([1, 0, 6, 2]),
        "weights": torch.tensor([0.0, 1.0, 2.5, 1.0]),
        "sequence_ids": torch.tensor([0, 0, 1, 1]),
        "reference_logits": reference,
    }
    return TokenBatch(**batch | fields)


def test_nll_equals_naive_loop():
    batch = draw_batch()
    expected = 0.0
    for logits, target, weight in zip(batch.logits, batch.targets, batch.weights, strict=True):
        expected -= float(weight) * float(torch.softmax(logits.double(), -1)[target].log())
    assert float(compute_nll(batch)) == pytest.approx(expected, rel=1e-5)


def test_kl_equals_naive_loop_at_temperature():
    batch = draw_batch(reference=torch.randn(4, 7))
    expected = 0.0
    rows = zip(batch.weights, batch.logits.double(), batch.reference_logits.double(), strict=True)
    for weight, ours, theirs in rows:
        p, q = torch.softmax(theirs / 2, -1), torch.softmax(ours / 2, -1)
        expected += float(weight) * float((p * (p / q).log()).sum())
    assert float(compute_forward_kl(batch, 2.0)) == pytest.approx(expected, rel=1e-5)


def test_equal_distributions_have_no_kl_and_no_gradient():
    logits = torch.randn(4, 7, requires_grad=True)
    batch = draw_batch(logits=logits, reference=logits.detach() + 1.0)
    kl = compute_forward_kl(batch, 2.0)
    kl.backward()
    assert abs(float(kl.detach())) < 1e-6 and float(logits.grad.abs().max()) < 1e-6


def test_only_tokens_of_both_vocabularies_are_compared():
    reference = torch.randn(4, 5)
    padded = draw_batch(reference=reference)
    short = draw_batch(reference=reference, logits=padded.logits[:, :5])
    assert torch.equal(compute_forward_kl(padded, 1.0), compute_forward_kl(short, 1.0))
