"""Difficulty without gold answers: choices after a shared prompt, and free answers."""

import logging

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from bridgekd import lm
from bridgekd.lm import choice_logprobs
from bridgekd.lm.tokenization import find_stop_ids, tokenize_continuations, tokenize_prompts
from bridgekd.prompts import render_answer_prompt
from bridgekd.records import Example
from bridgekd.selection.difficulty import MEASURES
from tiny_models import FAMILIES, TOKENIZERS, bent_model, tiny_tokenizer, write_tiny

CLOSED = [
    Example("a", "Who holds the red box ?", None, ("Ann", "Bob", "the quick brown fox")),
    Example("b", "So ?", None, ("no", "yes")),
    Example(
        "c", "the dog jumps over the lazy dog . " * 3 + "Who ?", "Bob", ("Bob", "Ann gives it")
    ),
    Example("d", "Is it ?", None, ("yes",)),
]
FREE = [Example(e.id, e.question) for e in CLOSED] + [Example("e", "2 + 2 ?", "4")]


@pytest.fixture(scope="module", params=FAMILIES)
def local(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return lm.load_model(write_tiny(folder, request.param, "byte_level"), device="cpu")


def log_probabilities(local, prompt, target):
    """Return log p [target, vocabulary] from all logits of one unpadded sequence."""
    with torch.no_grad():
        logits = local.model(input_ids=torch.tensor([[*prompt, *target]])).logits[0].double()
    return logits.log_softmax(-1)[len(prompt) - 1 : -1]


def naive_choices(local, example):
    (prompt,) = tokenize_prompts(local.tokenizer, [render_answer_prompt(example)])
    mark = tokenize_continuations(local.tokenizer, ["Answer:"])[0]
    means = []
    for letter, choice in zip("ABC", example.choices, strict=False):
        (target,) = tokenize_continuations(local.tokenizer, [f"Answer: ({letter}) {choice}"])
        log_p = log_probabilities(local, prompt, target)
        own = log_p.gather(1, torch.tensor(target)[:, None])[len(mark) :, 0]
        means.append(float(own.mean()))
    p = np.exp(means) / np.exp(means).sum()
    return -(p * np.log(p)).sum() / np.log(max(2, len(p))), np.sort([0, *p])[-2:]


def test_choice_difficulty_is_naive_entropy_and_margin(local):
    entropy = lm.score_examples(local, CLOSED, measure=MEASURES.get("entropy"), batch_size=2)
    margin = lm.score_examples(local, CLOSED, measure=MEASURES.get("margin"), batch_size=4)
    expected = [naive_choices(local, example) for example in CLOSED]
    np.testing.assert_allclose(entropy.difficulty, [h for h, _ in expected], atol=1e-5)
    gaps = [1 - (first - second) for _, (second, first) in expected]
    np.testing.assert_allclose(margin.difficulty, gaps, atol=1e-5)
    assert entropy.difficulty[3] == 0  # only one choice


def test_every_family_continues_shared_prompt(local):
    questions = choice_logprobs.tokenize_choices(local.tokenizer, CLOSED)
    assert choice_logprobs.can_share_prefix(local, questions)
    shared, embeddings = choice_logprobs.score_over_prefix(local, questions)
    full, full_embeddings = choice_logprobs.score_full(local, questions)
    for a, b in zip(shared, full, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    np.testing.assert_allclose(embeddings, full_embeddings, atol=1e-5)


@pytest.mark.parametrize("family", ["gemma2", "granite", "cohere"])
def test_attention_windows_and_scaled_logits_change_no_score(family):
    tokenizer = tiny_tokenizer("byte_level")
    local = lm.LocalModel(bent_model(family, len(tokenizer)).eval(), tokenizer, "cpu")
    assert choice_logprobs.can_share_prefix(
        local, choice_logprobs.tokenize_choices(local.tokenizer, CLOSED)
    )
    scored = lm.score_examples(local, CLOSED, measure=MEASURES.get("entropy"), batch_size=4)
    expected = [naive_choices(local, example)[0] for example in CLOSED]
    np.testing.assert_allclose(scored.difficulty, expected, atol=1e-5)


class WithoutPast(GPT2LMHeadModel):
    """A model that takes a cache and ignores it."""

    def forward(self, *args, past_key_values=None, attention_mask=None, **kwargs):
        return super().forward(*args, **kwargs)


def test_model_that_cannot_continue_is_scored_in_full_with_warning(caplog):
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=400, n_embd=16, n_layer=2, n_head=2, initializer_range=0.3,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = WithoutPast(config).eval()
    local = lm.LocalModel(model, tiny_tokenizer("byte_level"), "cpu")
    with caplog.at_level(logging.WARNING):
        scored = lm.score_examples(local, CLOSED, measure=MEASURES.get("entropy"), batch_size=1)
    assert "gpt2 does not continue a shared prompt exactly" in caplog.text
    assert np.isfinite(scored.difficulty).all()


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_only_tokens_of_choices_count_with_any_tokenizer(tmp_path, kind):
    local = lm.load_model(write_tiny(tmp_path, "llama", kind), device="cpu")
    scored = lm.score_examples(local, CLOSED[:2], measure=MEASURES.get("entropy"), batch_size=2)
    expected = [naive_choices(local, example)[0] for example in CLOSED[:2]]
    np.testing.assert_allclose(scored.difficulty, expected, atol=1e-5)


def naive_free(local, example, max_new_tokens):
    """Return mean entropy and mean 1 - (p1 - p2) over the generated tokens, one step at a time."""
    (prompt,) = tokenize_prompts(local.tokenizer, [render_answer_prompt(example)])
    ids = prompt + tokenize_continuations(local.tokenizer, ["Answer:"])[0]
    stop = find_stop_ids(local.tokenizer, local.model)
    seen = []
    for _ in range(max_new_tokens):
        p = log_probabilities(local, ids, [0])[0].exp()
        token = int(p.argmax())
        if token in stop and seen:
            break
        second, first = p.sort().values[-2:]
        seen.append((float(-(p * p.log()).sum()), float(1 - (first - second))))
        if token in stop:
            break
        ids = [*ids, token]
    return np.mean(seen, axis=0)


def test_open_difficulty_is_naive_entropy_and_margin_of_greedy_answer(local):
    expected = np.array([naive_free(local, example, 6) for example in FREE])
    for k, measure in enumerate((MEASURES.get("entropy"), MEASURES.get("margin"))):
        scored = lm.score_examples(local, FREE, measure=measure, max_new_tokens=6, batch_size=2)
        np.testing.assert_allclose(scored.difficulty, expected[:, k], atol=1e-5)


@pytest.mark.parametrize("measure", [MEASURES.get("entropy"), MEASURES.get("margin")])
def test_scores_ignore_batch_and_order_and_embeddings_ignore_measure(local, measure):
    mixed = [*CLOSED, *FREE]
    reports = []
    one = lm.score_examples(local, mixed, measure=measure, max_new_tokens=4, batch_size=1)
    back = lm.score_examples(
        local, mixed[::-1], measure=measure, max_new_tokens=4, batch_size=8,
        progress=lambda what, done, total: reports.append((what, done, total)),
    )  # fmt: skip
    np.testing.assert_allclose(one.difficulty, back.difficulty[::-1], atol=1e-5)
    np.testing.assert_allclose(one.embeddings, back.embeddings[::-1], atol=1e-5)
    assert reports[-1] == ("score", 9, 9)
    labeled = [Example(e.id, e.question, "Ann", e.choices) for e in mixed]
    by_loss = lm.score_examples(local, labeled, batch_size=4)
    np.testing.assert_allclose(one.embeddings, by_loss.embeddings, atol=1e-5)
    alone = lm.score_examples(local, mixed, measure=None, batch_size=4)
    np.testing.assert_allclose(alone.embeddings, by_loss.embeddings, atol=1e-5)
    assert not alone.difficulty.any()


def test_no_examples_give_no_scores(local):
    for measure in (MEASURES.get(name) for name in ("loss", "entropy", "margin")):
        scored = lm.score_examples(local, [], measure=measure, batch_size=4)
        assert scored.difficulty.shape == (0,)
