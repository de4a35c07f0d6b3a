"""Writing: the same text whatever the batch, and the text that `model.generate` writes."""

import pytest
import torch

from bridgekd import lm
from bridgekd.lm.encode import prompt_ids, stop_ids
from bridgekd.lm.generating import continue_ids
from bridgekd.records import Message
from tiny_models import FAMILIES, write_tiny

PROMPTS = [(Message("user", "Who holds " + "the red box " * k + "?"),) for k in (3, 1, 4, 1, 5, 0)]


@pytest.fixture(scope="module", params=FAMILIES)
def local(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return lm.load(write_tiny(folder, request.param, "word_level"), device="cpu")


def test_the_text_does_not_depend_on_batch_or_padding(local):
    texts = {n: lm.generate(local, PROMPTS, max_new_tokens=16, batch_size=n) for n in (1, 2, 4, 16)}
    assert all(written == texts[1] for written in texts.values())
    assert any(texts[1])


def test_greedy_text_is_what_model_generate_writes(local):
    written = lm.generate(local, PROMPTS, max_new_tokens=16, batch_size=3)
    stop = list(stop_ids(local.tokenizer, local.model))
    for ids, text in zip(prompt_ids(local.tokenizer, PROMPTS), written, strict=True):
        out = local.model.generate(
            inputs=torch.tensor([ids]), max_new_tokens=16, do_sample=False, eos_token_id=stop
        )
        new = out[0, len(ids) :]
        assert text == local.tokenizer.decode(new, skip_special_tokens=True).strip()


def test_rows_that_stop_early_leave_and_the_others_go_on(local):
    """Every token that the first text holds becomes a stop, so rows end at different steps."""
    ids = prompt_ids(local.tokenizer, PROMPTS)
    free = continue_ids(local, ids, 12, [2])
    stop = sorted({row[len(row) // 2] for row in free[::2] if row} | {2})
    expected = [row[: next((k for k, t in enumerate(row) if t in stop), 12)] for row in free]
    assert continue_ids(local, ids, 12, stop) == expected


def test_sampling_is_seeded_by_row_and_not_by_batch(local):
    def sample(seed, batch_size):
        return lm.generate(
            local, PROMPTS, max_new_tokens=8, batch_size=batch_size, temperature=1.0, seed=seed
        )

    assert sample(1, 2) == sample(1, 5) != sample(2, 5)
    assert sample(1, 2)[1] != sample(1, 2)[3]  # the same prompt, another row


def test_batches_are_told_as_they_finish(local):
    told, steps = {}, []
    texts = lm.generate(
        local,
        PROMPTS,
        max_new_tokens=4,
        batch_size=4,
        progress=lambda *step: steps.append(step),
        label="write",
        on_batch=lambda rows, written: told.update(zip(rows, written, strict=True)),
    )
    assert [told[i] for i in range(len(PROMPTS))] == texts
    assert steps == [("write", 4, 6), ("write", 6, 6)]


def test_no_prompts_give_no_texts(local):
    assert lm.generate(local, [], max_new_tokens=4, batch_size=4) == []


def test_what_a_cut_off_call_wrote_is_not_written_again(tmp_path):
    local = lm.load(write_tiny(tmp_path / "m"), device="cpu")
    prompts = [(Message("user", "the cat " * k),) for k in range(1, 8)]
    batches = []

    def write(**known):
        return lm.generate(
            local,
            prompts,
            max_new_tokens=6,
            batch_size=3,
            on_batch=lambda rows, texts: batches.append((rows, texts)),
            **known,
        )

    whole = write()
    first = dict(zip(*batches[0], strict=True))
    batches.clear()
    assert write(known=first) == whole
    assert len(batches) == 2 and not first.keys() & {i for rows, _ in batches for i in rows}
