"""Confidence in a text equals a naive computation with all logits."""

import pytest
import torch
from tokenizers import normalizers

from bridgekd import lm
from bridgekd.lm.tokenization import tokenize_continuations, tokenize_prompts
from bridgekd.prompts import render_cot_prompt, render_judge_prompt
from bridgekd.records import Example
from tiny_models import FAMILIES, tiny_model, tiny_tokenizer, write_tiny

BOX = Example("a", "Who holds the red box ?", "Ann")
YES = Example("b", "So ?", None, ("no", "yes"))
PAIRS = [
    (BOX, "Ann"),
    (BOX, "Ann holds a red box . Bob gives the box to Ann .\nAnswer: Ann"),
    (YES, ""),
    (YES, "(B) yes"),
    (YES, " \n"),
]


@pytest.fixture(scope="module", params=FAMILIES)
def local(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return lm.load_model(write_tiny(folder, request.param, "byte_level"), device="cpu")


def log_likelihoods(local, prompt, text):
    """Return log p of each token of the text, from all logits of one unpadded sequence."""
    (ids,) = tokenize_prompts(local.tokenizer, [prompt])
    (target,) = tokenize_continuations(local.tokenizer, [text])
    with torch.no_grad():
        logits = local.model(input_ids=torch.tensor([[*ids, *target]])).logits[0].double()
    log_p = logits.log_softmax(-1)[len(ids) - 1 : -1]
    return log_p.gather(1, torch.tensor(target)[:, None])[:, 0]


@pytest.mark.parametrize("batch_size", [1, 8])
def test_p_true_is_probability_of_true_among_first_tokens(local, batch_size):
    confidence = lm.estimate_confidence(local, PAIRS, measure="p_true", batch_size=batch_size)
    for (example, text), c in zip(PAIRS, confidence, strict=True):
        prompt = render_judge_prompt(example, text)
        true, false = (float(log_likelihoods(local, prompt, w)[0].exp()) for w in ("True", "False"))
        assert c == pytest.approx(true / (true + false) if text.strip() else 0, abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 8])
def test_likelihood_is_mean_over_tokens_of_text(local, batch_size):
    confidence = lm.estimate_confidence(local, PAIRS, measure="likelihood", batch_size=batch_size)
    for (example, text), c in zip(PAIRS, confidence, strict=True):
        mean = (
            log_likelihoods(local, render_cot_prompt(example), text).mean()
            if text.strip()
            else None
        )
        assert c == pytest.approx(0 if mean is None else float(mean.exp()), abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 8])
def test_ifd_is_the_ratio_of_perplexities_over_all_tokens_but_the_first(local, batch_size):
    ifd = lm.compute_ifd(local, PAIRS, batch_size=batch_size)
    for (example, text), value in zip(PAIRS, ifd, strict=True):
        (ids,) = tokenize_continuations(local.tokenizer, [text])
        if len(ids) < 2:
            assert value == 1
            continue
        given = log_likelihoods(local, render_cot_prompt(example), text)[1:].mean()
        with torch.no_grad():
            logits = local.model(torch.tensor([ids])).logits[0, :-1]
        alone = -torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]))
        assert value == pytest.approx(float((alone - given).exp()), rel=1e-4)


def test_words_with_same_first_token_are_compared_in_full():
    tokenizer = tiny_tokenizer("word_level")
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace("True", "the quick"), normalizers.Replace("False", "the lazy dog")]
    )
    local = lm.LocalModel(tiny_model("llama", len(tokenizer)).eval(), tokenizer, "cpu")
    true, false = tokenize_continuations(tokenizer, ["True", "False"])
    assert true[0] == false[0] and true != false
    (c,) = lm.estimate_confidence(local, PAIRS[:1], measure="p_true", batch_size=1)
    p, q = (float(log_likelihoods(local, render_judge_prompt(*PAIRS[0]), w).sum().exp())
            for w in ("True", "False"))  # fmt: skip
    assert c == pytest.approx(p / (p + q), abs=1e-5)


def test_progress_ends_at_number_of_pairs(local):
    reports = []
    lm.estimate_confidence(
        local, PAIRS, measure="p_true", batch_size=1,
        progress=lambda what, done, total: reports.append((what, done, total)),
    )  # fmt: skip
    assert reports[0] == ("judge", sum(not text.strip() for _, text in PAIRS), 5)
    assert reports[-1] == ("judge", 5, 5)


def test_no_pairs_and_blank_texts_need_no_model(local):
    for measure in ("p_true", "likelihood"):
        assert lm.estimate_confidence(local, [], measure=measure, batch_size=2).shape == (0,)
        assert lm.estimate_confidence(
            local, [(BOX, "")], measure=measure, batch_size=2
        ).tolist() == [0.0]
