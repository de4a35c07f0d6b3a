"""Writing: the same text whatever the batch, and the text that `model.generate` writes."""

import re
from dataclasses import replace

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from bridgekd import lm
from bridgekd.errors import InputError
from bridgekd.lm.generate import generate_ids
from bridgekd.lm.tokenization import find_stop_ids, tokenize_prompts
from bridgekd.records import Example, Message
from bridgekd.rng import SEED_STEP
from bridgekd.selection.difficulty import MEASURES
from bridgekd.throughput import Throughput
from tiny_models import FAMILIES, bent_model, tiny_tokenizer, write_tiny

PROMPTS = [(Message("user", "Who holds " + "the red box " * k + "?"),) for k in (3, 1, 4, 1, 5, 0)]


@pytest.fixture(scope="module", params=FAMILIES)
def local(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return lm.load_model(write_tiny(folder, request.param, "word_level"), device="cpu")


def test_the_text_does_not_depend_on_batch_or_padding(local):
    texts = {
        n: lm.generate_texts(local, PROMPTS, max_new_tokens=16, batch_size=n) for n in (1, 2, 4, 16)
    }
    assert all(written == texts[1] for written in texts.values())
    assert any(texts[1])


def test_a_table_of_positions_that_is_too_short_is_told_before_anything_is_written():
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
    """What `model.generate` writes for one prompt alone."""
    (ids,) = tokenize_prompts(local.tokenizer, [prompt])
    out = local.model.generate(
        inputs=torch.tensor([ids]),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=list(find_stop_ids(local.tokenizer, local.model)),
    )
    return local.tokenizer.decode(out[0, len(ids) :], skip_special_tokens=True).strip()


def test_greedy_text_is_what_model_generate_writes(local):
    written = lm.generate_texts(local, PROMPTS, max_new_tokens=16, batch_size=3)
    assert written == [expected(local, prompt, 16) for prompt in PROMPTS]


def test_rows_that_stop_early_leave_and_the_others_go_on(local):
    """Every token that the first text holds becomes a stop, so rows end at different steps."""
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
    assert sample(1, 2)[1] != sample(1, 2)[3]  # the same prompt, another row


def test_samples_are_the_texts_of_separate_calls(local):
    how = {"max_new_tokens": 8, "temperature": 1.0}
    apart = [
        lm.generate_texts(local, PROMPTS, batch_size=4, seed=3 + k * SEED_STEP, **how)
        for k in range(3)
    ]
    for batch_size in (2, 3, 7):  # fewer places than samples, as many, more
        drawn = lm.sample_texts(local, PROMPTS, 3, batch_size=batch_size, seed=3, **how)
        assert drawn == list(zip(*apart, strict=True))
    assert len(set(drawn[0])) == 3


@pytest.mark.parametrize("name", ["gemma2", "falcon_h1"])
def test_windows_and_state_spaces_change_no_text(name):
    tokenizer = tiny_tokenizer("word_level")
    model = bent_model(name, len(tokenizer)).eval()
    local = lm.LocalModel(model, tokenizer, "cpu")
    written = lm.generate_texts(local, PROMPTS, max_new_tokens=12, batch_size=4)
    assert written == [expected(local, prompt, 12) for prompt in PROMPTS]
    how = {"max_new_tokens": 6, "batch_size": 4, "temperature": 1.0}
    (first, second) = (
        lm.generate_texts(local, PROMPTS, seed=k * SEED_STEP, **how) for k in range(2)
    )
    assert lm.sample_texts(local, PROMPTS, 2, **how) == list(zip(first, second, strict=True))


def test_the_model_s_own_generation_settings_are_left_out(tmp_path):
    local = lm.load_model(write_tiny(tmp_path / "m", "llama", "word_level"), device="cpu")
    plain = lm.generate_texts(local, PROMPTS, max_new_tokens=12, batch_size=4)
    local.model.generation_config.repetition_penalty = 5.0
    assert lm.generate_texts(local, PROMPTS, max_new_tokens=12, batch_size=4) == plain
    assert local.model.generation_config.repetition_penalty == 5.0


def test_a_text_ends_with_the_first_match_and_no_token_is_written_behind_it(tmp_path):
    local = lm.load_model(write_tiny(tmp_path / "m", "llama", "byte_level"), device="cpu")
    a_line, how = re.compile(r"\w[^\n]*\n"), {"max_new_tokens": 60, "batch_size": 3, "seed": 1}

    def write(until):
        speed = Throughput()
        drawn = lm.sample_texts(
            local, PROMPTS, 3, temperature=1.5, until=until, throughput=speed, **how
        )
        return [text for texts in drawn for text in texts], speed.n_generated_tokens

    (free, n_free), (cut, n_cut) = write(None), write(a_line)
    ends = [a_line.search(text) for text in free]
    assert cut == [t[: e.end()].strip() if e else t for t, e in zip(free, ends, strict=True)]
    assert any(e and t[e.end() :] for t, e in zip(free, ends, strict=True))
    assert n_cut < n_free


def test_batches_are_reported_as_they_finish(local):
    told, steps = {}, []
    prompts = [*PROMPTS, *PROMPTS, *PROMPTS]
    texts = lm.generate_texts(
        local,
        prompts,
        max_new_tokens=4,
        batch_size=4,
        progress=lambda *step: steps.append(step),
        label="write",
        on_batch=lambda rows, written: told.update(zip(rows, written, strict=True)),
    )
    assert [told[i] for i in range(len(prompts))] == texts
    assert steps == [("write", n, 18) for n in (0, 4, 8, 12, 16, 18)]


def test_no_prompts_give_no_texts(local):
    assert lm.generate_texts(local, [], max_new_tokens=4, batch_size=4) == []


def test_batches_of_a_stopped_call_are_not_written_again(tmp_path):
    local = lm.load_model(write_tiny(tmp_path / "m"), device="cpu")
    prompts = [(Message("user", "the cat " * (k % 7)),) for k in range(40)]
    batches, speed = [], Throughput()

    def write(**known):
        return lm.generate_texts(
            local, prompts, max_new_tokens=6, batch_size=16,
            on_batch=lambda rows, texts: batches.append((rows, texts)), **known,
        )  # fmt: skip

    whole = write()
    assert [len(rows) for rows, _ in batches] == [16, 16, 8]
    first = dict(zip(*batches[0], strict=True))
    part = dict.fromkeys(batches[1][0][:5], "another text")  # not the whole batch: written again
    batches.clear()
    assert write(known=first | part, throughput=speed) == whole
    assert len(batches) == 2 and not first.keys() & {i for rows, _ in batches for i in rows}
    assert speed.n_texts == 24
