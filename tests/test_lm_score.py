"""Scores equal a naive computation with all logits."""

import numpy as np
import pytest
import torch

from bridgekd import lm
from bridgekd.errors import InputError
from bridgekd.lm.score_inputs import build_gold_rows
from bridgekd.lm.tokenization import tokenize_continuations, tokenize_prompts
from bridgekd.prompts import render_answer_prompt
from bridgekd.records import Example
from bridgekd.selection.difficulty import MEASURES
from tiny_models import FAMILIES, TOKENIZERS, write_tiny

EXAMPLES = [
    Example("a", "Who holds the red box ?", "Ann"),
    Example("b", "Who holds the box ?", "the quick brown fox"),
    Example("c", "So ?", "yes", ("no", "yes")),
    Example("d", "the dog jumps over the lazy dog . " * 3 + "Who ?", "Bob gives"),
]


@pytest.fixture(scope="module", params=FAMILIES)
def local(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return lm.load_model(write_tiny(folder, request.param, "byte_level"), device="cpu")


def naive(local, example):
    """Return the mean NLL of the answer tokens, from all logits of one unpadded sequence."""
    shown = "(B) yes" if example.choices else example.answer
    (prompt,) = tokenize_prompts(local.tokenizer, [render_answer_prompt(example)])
    mark, target = tokenize_continuations(local.tokenizer, ["Answer:", f"Answer: {shown}"])
    assert target[: len(mark)] == mark
    ids = torch.tensor([[*prompt, *target]])
    with torch.no_grad():
        logp = torch.log_softmax(local.model(input_ids=ids).logits[0, :-1].double(), -1)
    nll = -logp.gather(1, ids[0, 1:, None])[len(prompt) + len(mark) - 1 :, 0]
    return float(nll.mean())


def test_difficulty_is_mean_nll_of_answer_tokens(local):
    scored = lm.score_examples(local, EXAMPLES, batch_size=4)
    expected = [naive(local, example) for example in EXAMPLES]
    np.testing.assert_allclose(scored.difficulty, expected, atol=1e-5)


def test_scores_ignore_batch_and_order(local):
    one, all_ = (lm.score_examples(local, EXAMPLES, batch_size=n) for n in (1, 4))
    back = lm.score_examples(local, EXAMPLES[::-1], batch_size=3)
    for name in ("difficulty", "embeddings"):
        a, b, c = (getattr(scored, name) for scored in (one, all_, back))
        np.testing.assert_allclose(a, b, atol=1e-5)
        np.testing.assert_allclose(a, c[::-1], atol=1e-5)


@pytest.mark.parametrize("measure", [MEASURES.get("loss"), MEASURES.get("entropy"), None])
def test_scores_ignore_parts_of_pool(local, measure):
    whole, parted = (
        lm.score_examples(local, EXAMPLES, measure=measure, batch_size=2, max_new_tokens=4, part=n)
        for n in (4, 3)
    )
    for name in ("difficulty", "embeddings"):
        a, b = (getattr(scored, name) for scored in (whole, parted))
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_embedding_is_mean_over_question_tokens(local):
    example = EXAMPLES[1]
    embeddings = lm.score_examples(local, [example], batch_size=1).embeddings
    (prompt,) = tokenize_prompts(local.tokenizer, [render_answer_prompt(example)])
    text = local.tokenizer.decode(prompt)
    ends = [len(local.tokenizer.decode(prompt[: k + 1])) for k in range(len(prompt))]
    start = text.index(example.question)
    end = start + len(example.question)
    inside = [k for k, e in enumerate(ends) if start < e and (ends[k - 1] if k else 0) < end]
    with torch.no_grad():
        out = local.model(input_ids=torch.tensor([prompt]), output_hidden_states=True)
    mean = out.hidden_states[-1][0, inside].mean(0)
    np.testing.assert_allclose(embeddings[0], (mean / mean.norm()).numpy(), atol=1e-5)
    assert embeddings.dtype == np.float32


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_answer_prefix_never_counts(tmp_path, kind):
    local = lm.load_model(write_tiny(tmp_path, "llama", kind), device="cpu")
    assert [row.n_scored for row in build_gold_rows(local.tokenizer, EXAMPLES[:1])] == [1]


def test_example_without_gold_answer_is_named(local):
    with pytest.raises(InputError, match="Example q7 has no gold answer"):
        lm.score_examples(local, [Example("q7", "Who ?")], batch_size=1)
