"""The objective, against a loop that anybody can check."""

import torch

from bridgekd.lm.losses import weighted_kl, weighted_nll


def naive(logits, labels, weights):
    total = norm = 0.0
    for i in range(len(labels)):
        for t in range(len(labels[i])):
            probability = torch.softmax(logits[i, t].double(), -1)[labels[i, t]]
            total -= float(weights[i, t]) * float(torch.log(probability))
            norm += float(weights[i, t])
    return total, norm


def test_the_loss_is_the_weighted_sum_of_the_naive_loop():
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 5, 7), torch.randint(0, 7, (3, 5))
    weights = torch.tensor([0.0, 1.0, 2.5])[torch.randint(0, 3, (3, 5))]
    total, norm = weighted_nll(logits, labels, weights)
    expected = naive(logits, labels, weights)
    assert abs(float(total) - expected[0]) < 1e-4
    assert float(norm) == expected[1]


def test_a_batch_in_which_nothing_counts_has_no_loss_and_no_gradient():
    logits = torch.randn(1, 4, 3, requires_grad=True)
    total, norm = weighted_nll(logits, torch.zeros(1, 4, dtype=torch.long), torch.zeros(1, 4))
    total.backward()
    assert float(total.detach()) == 0 and float(norm) == 0
    assert not logits.grad.any()


def test_the_mentor_s_part_is_the_weighted_divergence_of_softened_distributions():
    torch.manual_seed(0)
    ours, theirs = torch.randn(4, 7), torch.randn(4, 7)
    weights = torch.tensor([0.0, 1.0, 2.5, 1.0])
    expected = 0.0
    for w, a, b in zip(weights, ours.double(), theirs.double(), strict=True):
        p, q = torch.softmax(b / 2, -1), torch.softmax(a / 2, -1)
        expected += float(w) * float((p * (p / q).log()).sum())
    assert abs(float(weighted_kl(ours, theirs, weights, temperature=2.0)) - expected) < 1e-5


def test_who_says_what_the_mentor_says_has_nothing_to_learn_from_it():
    logits = torch.randn(3, 5, requires_grad=True)
    kl = weighted_kl(logits, logits.detach() + 1.0, torch.ones(3), temperature=2.0)
    kl.backward()
    assert abs(float(kl.detach())) < 1e-6 and float(logits.grad.abs().max()) < 1e-6
