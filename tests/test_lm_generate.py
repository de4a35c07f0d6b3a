"""Generation: texts equal those of `model.generate` and do not depend on the batch."""

import ctypes
import re
from dataclasses import replace

import psutil
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from bridgekd import lm
from bridgekd.errors import InputError
from bridgekd.lm.generate import PromptRow, generate_ids, sample_ids
from bridgekd.lm.tokenization import find_stop_ids, tokenize_prompts
from bridgekd.records import Example, Message
from bridgekd.rng import SEED_STEP
from bridgekd.selection.difficulty import MEASURES
from bridgekd.throughput import Throughput
from tiny_models import FAMILIES, bent_model, tiny_tokenizer, write_babbler, write_tiny

PROMPTS = [(Message("user", "Who holds " + "the red box " * k + "?"),) for k in (3, 1, 4, 1, 5, 0)]


@pytest.fixture(scope="module", params=FAMILIES)
def local(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return lm.load_model(write_tiny(folder, request.param, "word_level"), device="cpu")


def test_texts_ignore_batch_and_padding(local):
    texts = {
        n: lm.generate_texts(local, PROMPTS, max_new_tokens=16, batch_size=n) for n in (1, 2, 4, 16)
    }
    assert all(t == texts[1] for t in texts.values())
    assert any(texts[1])


def test_model_continues_the_first_half_of_its_own_text_with_the_second(local):
    tok = local.tokenizer
    ids, stop_ids = tokenize_prompts(tok, PROMPTS), find_stop_ids(tok, local.model)
    own = generate_ids(local, ids, 12, stop_ids)
    halves = [str(tok.decode(row[:6])) for row in own]
    begun = [(*p, Message("assistant", text)) for p, text in zip(PROMPTS, halves, strict=True)]
    read = tokenize_prompts(tok, begun)
    rows = [i for i, row in enumerate(own) if read[i] == ids[i] + row[:6] and len(row) == 12]
    assert rows  # the others have words that the tokenizer does not know
    texts = lm.generate_texts(local, [begun[i] for i in rows], max_new_tokens=6, batch_size=4)
    assert texts == [str(tok.decode(own[i][6:], skip_special_tokens=True)).strip() for i in rows]


def test_too_few_positions_raise_error_before_generation():
    config = GPT2Config(vocab_size=400, n_embd=16, n_layer=1, n_head=2, n_positions=48,
                        bos_token_id=1, eos_token_id=2)  # fmt: skip
    torch.manual_seed(0)
    local = lm.LocalModel(GPT2LMHeadModel(config).eval(), tiny_tokenizer("byte_level"), "cpu")
    longest = max(map(len, tokenize_prompts(local.tokenizer, PROMPTS[:1])))
    fits = {"max_new_tokens": 48 - longest, "batch_size": 1}
    assert len(lm.generate_texts(local, PROMPTS[:1], **fits)) == 1
    with pytest.raises(
        InputError, match="up to 49 tokens does not fit gpt2, which has 48 positions"
    ):
        lm.generate_texts(local, PROMPTS[:1], **fits | {"max_new_tokens": 49 - longest})
    with pytest.raises(InputError, match="up to 49 tokens does not fit gpt2"):
        sample_ids(local, [PromptRow([3] * longest)], 49 - longest, (2,))
    question = Example(id="q", question="the red box " * 48, answer="Ann")
    with pytest.raises(InputError, match="does not fit gpt2"):
        lm.score_examples(local, [question], batch_size=1)
    with pytest.raises(InputError, match="does not fit gpt2"):
        lm.score_examples(
            local,
            [replace(question, choices=("Ann", "Bob"))],
            measure=MEASURES.get("margin"),
            batch_size=1,
        )


def expected(local, prompt, max_new_tokens):
    """Return the text of `model.generate` for one prompt."""
    (ids,) = tokenize_prompts(local.tokenizer, [prompt])
    out = local.model.generate(
        inputs=torch.tensor([ids]),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=list(find_stop_ids(local.tokenizer, local.model)),
    )
    return local.tokenizer.decode(out[0, len(ids) :], skip_special_tokens=True).strip()


def test_greedy_text_equals_model_generate(local):
    texts = lm.generate_texts(local, PROMPTS, max_new_tokens=16, batch_size=3)
    assert texts == [expected(local, prompt, 16) for prompt in PROMPTS]


def test_rows_that_stop_early_do_not_stop_others(local):
    """The middle tokens of some texts become stop tokens, so rows end at different steps."""
    ids = tokenize_prompts(local.tokenizer, PROMPTS)
    free = generate_ids(local, ids, 12, [2])
    stop = sorted({row[len(row) // 2] for row in free[::2] if row} | {2})
    expected = [row[: next((k for k, t in enumerate(row) if t in stop), 12)] for row in free]
    assert generate_ids(local, ids, 12, stop) == expected


def test_sampling_is_seeded_by_row_and_not_by_batch(local):
    def sample(seed, batch_size):
        return lm.generate_texts(
            local, PROMPTS, max_new_tokens=8, batch_size=batch_size, temperature=1.0, seed=seed
        )

    assert sample(1, 2) == sample(1, 5) != sample(2, 5)
    assert sample(1, 2)[1] != sample(1, 2)[3]  # same prompt, different row


def test_samples_equal_texts_of_separate_calls(local):
    options = {"max_new_tokens": 8, "temperature": 1.0}
    separate = [
        lm.generate_texts(local, PROMPTS, batch_size=4, seed=3 + k * SEED_STEP, **options)
        for k in range(3)
    ]
    for batch_size in (2, 3, 7):  # fewer rows than samples, as many, more
        samples = lm.sample_texts(local, PROMPTS, 3, batch_size=batch_size, seed=3, **options)
        assert samples == list(zip(*separate, strict=True))
    assert len(set(samples[0])) == 3


@pytest.mark.parametrize("name", ["gemma2", "falcon_h1"])
def test_attention_windows_and_state_spaces_change_no_text(name):
    tokenizer = tiny_tokenizer("word_level")
    model = bent_model(name, len(tokenizer)).eval()
    local = lm.LocalModel(model, tokenizer, "cpu")
    texts = lm.generate_texts(local, PROMPTS, max_new_tokens=12, batch_size=4)
    assert texts == [expected(local, prompt, 12) for prompt in PROMPTS]
    options = {"max_new_tokens": 6, "batch_size": 4, "temperature": 1.0}
    (first, second) = (
        lm.generate_texts(local, PROMPTS, seed=k * SEED_STEP, **options) for k in range(2)
    )
    assert lm.sample_texts(local, PROMPTS, 2, **options) == list(zip(first, second, strict=True))


def test_generation_config_of_model_is_ignored(tmp_path):
    local = lm.load_model(write_tiny(tmp_path / "m", "llama", "word_level"), device="cpu")
    plain = lm.generate_texts(local, PROMPTS, max_new_tokens=12, batch_size=4)
    local.model.generation_config.repetition_penalty = 5.0
    assert lm.generate_texts(local, PROMPTS, max_new_tokens=12, batch_size=4) == plain
    assert local.model.generation_config.repetition_penalty == 5.0


def test_text_ends_with_first_match_and_no_token_follows(tmp_path):
    local = lm.load_model(write_tiny(tmp_path / "m", "llama", "byte_level"), device="cpu")
    a_line, options = re.compile(r"\w[^\n]*\n"), {"max_new_tokens": 60, "batch_size": 3, "seed": 1}

    def write(until):
        speed = Throughput()
        samples = lm.sample_texts(
            local, PROMPTS, 3, temperature=1.5, until=until, throughput=speed, **options
        )
        return [text for texts in samples for text in texts], speed.n_generated_tokens

    (free, n_free), (cut, n_cut) = write(None), write(a_line)
    ends = [a_line.search(text) for text in free]
    assert cut == [t[: e.end()].strip() if e else t for t, e in zip(free, ends, strict=True)]
    assert any(e and t[e.end() :] for t, e in zip(free, ends, strict=True))
    assert n_cut < n_free


def test_batches_are_reported_as_they_finish(local):
    finished, steps = {}, []
    prompts = [*PROMPTS, *PROMPTS, *PROMPTS]
    texts = lm.generate_texts(
        local,
        prompts,
        max_new_tokens=4,
        batch_size=4,
        progress=lambda *step: steps.append(step),
        label="write",
        on_batch=lambda rows, batch, _: finished.update(zip(rows, batch, strict=True)),
    )
    assert [finished[i] for i in range(len(prompts))] == texts
    assert steps == [("write", n, 18) for n in (0, 4, 8, 12, 16, 18)]


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs glibc")
def test_freed_memory_goes_back_to_the_system_while_texts_grow(tmp_path):
    local = lm.load_model(write_babbler(tmp_path / "m", "Ann holds"), device="cpu")
    prompt = [(Message("user", "Who?"),)]
    lm.generate_texts(local, prompt, max_new_tokens=32, batch_size=1)
    blocks = [b"x" * (100_000 + k) for k in range(2000)]  # too small for a mapping of their own
    last = blocks.pop()
    blocks.clear()  # the last block keeps the heap from shrinking at its end
    process = psutil.Process()
    before = process.memory_info().rss
    (text,) = lm.generate_texts(local, prompt, max_new_tokens=32, batch_size=1)
    assert before - process.memory_info().rss > 100e6 and len(last) and len(text.split()) > 16


def test_no_prompts_give_no_texts(local):
    assert lm.generate_texts(local, [], max_new_tokens=4, batch_size=4) == []


def test_known_batches_are_not_generated_again(tmp_path):
    local = lm.load_model(write_tiny(tmp_path / "m"), device="cpu")
    prompts = [(Message("user", "the cat " * (k % 7)),) for k in range(40)]
    batches, speed = [], Throughput()

    def write(**known):
        return lm.generate_texts(
            local, prompts, max_new_tokens=6, batch_size=16,
            on_batch=lambda rows, texts, _: batches.append((rows, texts)), **known,
        )  # fmt: skip

    whole = write()
    assert [len(rows) for rows, _ in batches] == [16, 16, 8]
    first = dict(zip(*batches[0], strict=True))
    part = dict.fromkeys(
        batches[1][0][:5], "another text"
    )  # an incomplete batch is generated again
    batches.clear()
    assert write(known=first | part, throughput=speed) == whole
    assert len(batches) == 2 and not first.keys() & {i for rows, _ in batches for i in rows}
    assert speed.n_texts == 24
