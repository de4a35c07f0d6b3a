"""Measured speeds predict the time that the same model needs."""

import time

import pytest

from bridgekd import lm
from bridgekd.lm.measure_speed import estimate_padding
from bridgekd.lm.tokenization import tokenize_prompts
from bridgekd.prompts import render_cot_prompt
from bridgekd.recipe import RuntimeOptions, TrainOptions
from bridgekd.records import Message, TargetSpan, TrainingSequence
from bridgekd.sandbox.world import generate_examples
from bridgekd.throughput import Throughput
from tiny_models import write_tiny

EXAMPLES = generate_examples(48, 5)
FACTOR = 3.0  # other processes may use the cores during one of the two measurements


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def local(folder):
    return lm.load_model(folder, device="cpu")


def is_close(estimate, seconds):
    return seconds / FACTOR < estimate < seconds * FACTOR


def test_generation_takes_measured_time(local):
    reading = lm.measure_reading(local, EXAMPLES)
    rate, size = lm.measure_decoding(local, EXAMPLES, 40, 16)
    spent = Throughput()
    prompts = [render_cot_prompt(e) for e in EXAMPLES]
    lm.generate_texts(local, prompts, max_new_tokens=40, batch_size=size, throughput=spent)
    estimate = reading.estimate(0, spent.n_prompt_tokens) + rate.estimate(3 * 40, 48 * 40)
    assert size == 16 and is_close(estimate, spent.seconds)


def test_batch_size_is_chosen_as_in_a_run(local):
    _, size = lm.measure_decoding(local, EXAMPLES, 4, None)
    assert size == 64


def test_training_takes_measured_time(folder, tmp_path):
    rows = [
        TrainingSequence(str(i), (Message("user", "a b c"),), (TargetSpan("x y " * 20),))
        for i in range(32)
    ]
    train = TrainOptions(batch_size=8, updates=20)
    lengths = lm.count_row_tokens(lm.load_model(folder, device="cpu"), rows)
    rate = lm.measure_training(
        folder, rows, lengths, train,
        device="cpu", revision=None, lora=None, runtime=RuntimeOptions(),
    )  # fmt: skip
    times = []
    log = lm.fine_tune(
        lm.TrainingJob(folder, rows, tmp_path / "out", train, n_updates=20, seed=1, device="cpu"),
        lambda *_: times.append(time.monotonic()),
    )
    assert is_close(rate.estimate(20, log.n_tokens), times[-1] - times[0])


def test_micro_batches_need_less_padding():
    lengths = [10, 20, 30, 40] * 16
    whole, cut = (estimate_padding(lengths, 32, tokens) for tokens in (None, 80))
    assert whole == pytest.approx(40 / 25, rel=0.01)
    assert 1 <= cut < 1.1


def test_scoring_takes_measured_reading_time(local):
    rate = lm.measure_reading(local, EXAMPLES)
    per_character, per_prompt = lm.count_tokens(local, EXAMPLES)
    n_characters = sum(len(e.question) + len(e.answer) for e in EXAMPLES)
    started = time.monotonic()
    lm.score_examples(local, EXAMPLES, batch_size=16)
    n_tokens = per_character * n_characters + len(EXAMPLES) * per_prompt
    assert is_close(rate.estimate(0, n_tokens), time.monotonic() - started)


def test_prompt_tokens_are_counted_with_tokenizer_of_model(local):
    per_character, per_prompt = lm.count_tokens(local, EXAMPLES)
    prompts = tokenize_prompts(local.tokenizer, [render_cot_prompt(e) for e in EXAMPLES])
    n_characters = sum(len(e.question) for e in EXAMPLES)
    expected = sum(map(len, prompts))
    assert per_character * n_characters + per_prompt * len(EXAMPLES) == pytest.approx(expected)
