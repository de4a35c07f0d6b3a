"""Scores against the plain computation with all logits."""

import numpy as np
import pytest
import torch

from bridgekd import lm
from bridgekd.core.difficulty import n_distinct, option_entropy, option_margin, vote_entropy
from bridgekd.core.prompts import answer_prompt, explain_prompt, judge_prompt
from bridgekd.errors import BadInput
from bridgekd.lm.encode import prompt_ids, stop_ids, text_ids
from bridgekd.records import Example
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
    return lm.load(write_tiny(folder, request.param, "byte_level"), device="cpu")


def naive(local, example):
    """NLL of the answer's tokens from all logits of one unpadded sequence."""
    shown = "(B) yes" if example.choices else example.answer
    (prompt,) = prompt_ids(local.tokenizer, [answer_prompt(example)])
    mark, target = text_ids(local.tokenizer, ["Answer:", f"Answer: {shown}"])
    assert target[: len(mark)] == mark
    ids = torch.tensor([[*prompt, *target]])
    with torch.no_grad():
        logp = torch.log_softmax(local.model(input_ids=ids).logits[0, :-1].double(), -1)
    nll = -logp.gather(1, ids[0, 1:, None])[len(prompt) + len(mark) - 1 :, 0]
    return float(nll.mean()), len(nll)


def test_the_difficulty_is_the_mean_nll_of_the_answers_tokens_alone(local):
    scored = lm.score(local, EXAMPLES, batch_size=4)
    nll, n_tokens = scored.difficulty, scored.n_answer_tokens
    expected = [naive(local, example) for example in EXAMPLES]
    np.testing.assert_allclose(nll, [value for value, _ in expected], atol=1e-5)
    assert n_tokens.tolist() == [n for _, n in expected]


def test_scores_do_not_depend_on_batch_or_order(local):
    one, all_ = (lm.score(local, EXAMPLES, batch_size=n) for n in (1, 4))
    back = lm.score(local, EXAMPLES[::-1], batch_size=3)
    for name in ("difficulty", "n_answer_tokens", "embeddings"):
        a, b, c = (getattr(scored, name) for scored in (one, all_, back))
        np.testing.assert_allclose(a, b, atol=1e-5)
        np.testing.assert_allclose(a, c[::-1], atol=1e-5)


def test_the_embedding_is_the_mean_over_the_questions_tokens(local):
    example = EXAMPLES[1]
    embeddings = lm.score(local, [example], batch_size=1).embeddings
    (prompt,) = prompt_ids(local.tokenizer, [answer_prompt(example)])
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
def test_the_mark_before_the_answer_never_counts(tmp_path, kind):
    local = lm.load(write_tiny(tmp_path, "llama", kind), device="cpu")
    n_tokens = lm.score(local, EXAMPLES[:1], batch_size=1).n_answer_tokens
    assert n_tokens.tolist() == [1]


def test_an_example_without_a_gold_answer_is_named(local):
    with pytest.raises(BadInput, match="example q7 has no gold answer"):
        lm.score(local, [Example("q7", "Who ?")], batch_size=1)


OPEN = [Example(e.id, e.question) for e in EXAMPLES if not e.choices]
CLOSED = [Example("c", "So ?", None, ("no", "yes", "the lazy dog")), EXAMPLES[2]]


def log_probabilities(local, prompt, target):
    """[n_target, vocabulary] from all logits of one unpadded sequence."""
    ids = torch.tensor([[*prompt, *target]])
    with torch.no_grad():
        log_p = torch.log_softmax(local.model(input_ids=ids).logits[0].double(), -1)
    return log_p[len(prompt) - 1 : -1]


def mean_log_likelihood(local, prompt, target):
    log_p = log_probabilities(local, prompt, target)
    return float(log_p.gather(1, torch.tensor(target)[:, None]).mean())


def greedy(local, prompt, n_most):
    """Token by token, without a cache."""
    stop, written = stop_ids(local.tokenizer, local.model), []
    while len(written) < n_most:
        token = int(log_probabilities(local, [*prompt, *written], [0])[0].argmax())
        if token in stop:
            break
        written.append(token)
    return written


@pytest.mark.parametrize("measure", ["entropy", "margin"])
def test_without_options_the_greedy_answer_tells_how_unsure_the_model_is(local, measure):
    found = lm.score(local, OPEN, measure=measure, max_new_tokens=6, batch_size=2)
    (mark,) = text_ids(local.tokenizer, ["Answer:"])
    for example, value in zip(OPEN, found.difficulty, strict=True):
        (prompt,) = prompt_ids(local.tokenizer, [answer_prompt(example)])
        answer = greedy(local, [*prompt, *mark], 6)
        p = log_probabilities(local, [*prompt, *mark], answer).exp()
        first, second = p.topk(2).values.T
        wanted = -(p * p.log()).sum(-1) if measure == "entropy" else 1 - (first - second)
        assert value == pytest.approx(float(wanted.mean()) if answer else 0.0, abs=1e-4)


@pytest.mark.parametrize(
    ("measure", "judge"), [("entropy", option_entropy), ("margin", option_margin)]
)
def test_with_options_their_likelihoods_tell_it_and_no_gold_answer_is_needed(local, measure, judge):
    found = lm.score(local, CLOSED, measure=measure, batch_size=3)
    for example, value in zip(CLOSED, found.difficulty, strict=True):
        (prompt,) = prompt_ids(local.tokenizer, [answer_prompt(example)])
        said = []
        for letter, choice in zip("ABC", example.choices, strict=False):
            mark, target = text_ids(local.tokenizer, ["Answer:", f"Answer: ({letter}) {choice}"])
            said.append(mean_log_likelihood(local, [*prompt, *mark], target[len(mark) :]))
        assert value == pytest.approx(judge(np.array(said)), abs=1e-4)


@pytest.mark.parametrize("measure", ["entropy", "margin", None])
def test_the_embedding_does_not_depend_on_the_measure(local, measure):
    by_loss = lm.score(local, EXAMPLES, batch_size=4).embeddings
    other = lm.score(local, EXAMPLES, measure=measure, max_new_tokens=3, batch_size=4)
    np.testing.assert_allclose(other.embeddings, by_loss, atol=1e-5)


def test_p_true_is_the_share_of_true_among_true_and_false(local):
    pairs = [(EXAMPLES[0], "Ann holds it .\nAnswer: Ann"), (EXAMPLES[2], "Answer: (B) yes")]
    found = lm.confidence(local, [*pairs, (EXAMPLES[0], "")], how="p_true", batch_size=2)
    yes, no = text_ids(local.tokenizer, ["True", "False"])
    for (example, text), value in zip(pairs, found, strict=False):
        (prompt,) = prompt_ids(local.tokenizer, [judge_prompt(example, text)])
        both = [np.exp(len(w) * mean_log_likelihood(local, prompt, w)) for w in (yes, no)]
        assert value == pytest.approx(both[0] / sum(both), abs=1e-4)
    assert found[2] == 0


def test_likelihood_is_the_geometric_mean_of_the_texts_tokens(local):
    text = "Ann holds it .\nAnswer: Ann"
    (found,) = lm.confidence(local, [(EXAMPLES[0], text)], how="likelihood", batch_size=2)
    (prompt,) = prompt_ids(local.tokenizer, [explain_prompt(EXAMPLES[0])])
    (target,) = text_ids(local.tokenizer, [text])
    assert found == pytest.approx(np.exp(mean_log_likelihood(local, prompt, target)), abs=1e-4)


def test_options_that_are_alike_are_hardest_and_votes_that_agree_are_easiest():
    alike, sure = np.full(4, -2.0), np.array([0.0, -100.0, -100.0])
    assert (option_entropy(alike), option_margin(alike)) == (pytest.approx(1), pytest.approx(1))
    assert (option_entropy(sure), option_margin(sure)) == (pytest.approx(0), pytest.approx(0))
    assert (vote_entropy(["a", "a", "a"]), vote_entropy(["a", "b", ""])) == (0, pytest.approx(1))
    assert (n_distinct(["a", "", "a", ""]), n_distinct(["a"])) == (2, 1)
