"""Logits at selected positions equal those of the full model."""

import numpy as np
import pytest
import torch

from bridgekd.lm import LocalModel, forward
from bridgekd.lm.collate import batch_by_median_tokens
from bridgekd.lm.forward import ScoringRow, compute_row_means
from bridgekd.selection.difficulty.entropy import token_entropy
from bridgekd.selection.difficulty.margin import token_margin
from tiny_models import FAMILIES, bent_model, tiny_model, tiny_tokenizer

ROWS = [
    ScoringRow((5, 6, 7, 8, 9), (True, True, False), 2),
    ScoringRow((11, 12, 13, 14, 15, 16, 17, 18), (False, True, True), 5),
    ScoringRow((21, 22), (True,), 1),
]


@pytest.fixture(scope="module", params=[*FAMILIES, "gemma2", "granite", "cohere"])
def local(request):
    tokenizer = tiny_tokenizer("byte_level")
    is_bent = request.param not in FAMILIES
    model = bent_model(request.param, 300) if is_bent else tiny_model(request.param, 300)
    return LocalModel(model.eval(), tokenizer, "cpu")


def all_logits(local, row):
    with torch.no_grad():
        logits = local.model(input_ids=torch.tensor([row.ids])).logits[0, :-1].double()
    return logits[-row.n_scored :], torch.tensor(row.ids[-row.n_scored :])


@pytest.mark.parametrize("max_logits", [2**26, 300, 900])
def test_mean_equals_mean_over_all_logits_in_chunks_or_at_once(local, max_logits):
    values, _ = compute_row_means(local, ROWS, forward.token_nll, max_logits=max_logits)
    expected = []
    for row in ROWS:
        logits, targets = all_logits(local, row)
        expected.append(float(torch.nn.functional.cross_entropy(logits, targets)))
    np.testing.assert_allclose(values, expected, atol=1e-5)


def test_token_entropy_and_margin_match_definitions(local):
    entropies, _ = compute_row_means(local, ROWS, lambda logits, targets: token_entropy(logits))
    margins, _ = compute_row_means(local, ROWS, lambda logits, targets: token_margin(logits))
    for row, entropy, margin in zip(ROWS, entropies, margins, strict=True):
        p = all_logits(local, row)[0].softmax(-1)
        two = p.sort(-1).values[:, -2:]
        assert float(entropy) == pytest.approx(float(-(p * p.log()).sum(-1).mean()), abs=1e-5)
        assert float(margin) == pytest.approx(float((1 - two[:, 1] + two[:, 0]).mean()), abs=1e-5)


def test_logits_exist_at_scored_positions_only(local):
    seen = []
    handle = local.model.get_output_embeddings().register_forward_hook(
        lambda _module, _args, out: seen.append(tuple(out.shape))
    )
    compute_row_means(local, ROWS, forward.token_nll)
    handle.remove()
    assert seen == [(1, 1, 300), (1, 8, 300)]  # one token of the first pass; 2 + 5 + 1 tokens


def test_batches_have_at_most_tokens_of_median_rows():
    lengths = [3, 90, 10, 12, 8, 10, 2, 11, 2, 31]
    batches = batch_by_median_tokens(lengths, 3)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    sizes = [len(batch) * max(lengths[i] for i in batch) for batch in batches]
    assert sizes[:2] == [90, 31]  # more than three rows of 10 tokens
    assert max(sizes[2:]) <= 30
    flat = [lengths[i] for batch in batches for i in batch]
    assert flat == sorted(lengths, reverse=True)
    assert batch_by_median_tokens([], 4) == []
