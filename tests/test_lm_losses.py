"""The objective, against a loop that anybody can check."""

import torch

from bridgekd.lm.losses import weighted_nll


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
