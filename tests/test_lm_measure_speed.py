"""Measured speeds predict the time that the same model needs.

The clock is one of the test: every call of a model advances it by a constant time and a time per
token. So the load of the machine cannot change a result.
"""

from collections.abc import Iterator

import pytest
from torch.nn.modules.module import register_module_forward_hook
from transformers import PreTrainedModel

from bridgekd import lm
from bridgekd.lm import generate, measure_speed
from bridgekd.lm.measure_speed import estimate_padding
from bridgekd.lm.tokenization import tokenize_prompts
from bridgekd.prompts import render_cot_prompt
from bridgekd.recipe import RuntimeOptions, TrainOptions
from bridgekd.records import Message, TargetSpan, TrainingSequence
from bridgekd.sandbox.world import generate_examples
from bridgekd.throughput import Throughput
from tiny_models import write_tiny

EXAMPLES = generate_examples(48, 5)
CALL_S, TOKEN_S = 0.001, 0.0001


class Clock:
    """Seconds of work: CALL_S for every call of a model and TOKEN_S for every token it gets."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def count_work(
        self, module: object, args: object, kwargs: dict[str, object], _: object
    ) -> None:
        if isinstance(module, PreTrainedModel) and module.base_model is module:
            self.now += CALL_S + TOKEN_S * kwargs["input_ids"].numel()


@pytest.fixture
def clock(monkeypatch) -> Iterator[Clock]:
    clock = Clock()
    for module in (generate, measure_speed):
        monkeypatch.setattr(module, "time", clock)
    handle = register_module_forward_hook(clock.count_work, with_kwargs=True)
    yield clock
    handle.remove()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def local(folder):
    return lm.load_model(folder, device="cpu")


def test_generation_takes_measured_time(local, clock):
    reading = lm.measure_reading(local, EXAMPLES)
    rate, size = lm.measure_decoding(local, EXAMPLES, 40, 16)
    spent = Throughput()
    prompts = [render_cot_prompt(e) for e in EXAMPLES]
    lm.generate_texts(local, prompts, max_new_tokens=40, batch_size=size, throughput=spent)
    estimate = reading.estimate(0, spent.n_prompt_tokens) + rate.estimate(3 * 40, 48 * 40)
    assert size == 16 and estimate == pytest.approx(spent.seconds, rel=0.25)


def test_batch_size_is_chosen_as_in_a_run(local):
    _, size = lm.measure_decoding(local, EXAMPLES, 4, None)
    assert size == 64


def test_training_takes_measured_time(folder, tmp_path, clock):
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
        lambda *_: times.append(clock.now),
    )
    assert rate.estimate(19, log.n_tokens * 19 / 20) == pytest.approx(
        times[-1] - times[0], rel=0.25
    )


def test_micro_batches_need_less_padding():
    lengths = [10, 20, 30, 40] * 16
    whole, cut = (estimate_padding(lengths, 32, tokens) for tokens in (None, 80))
    assert whole == pytest.approx(40 / 25, rel=0.01)
    assert 1 <= cut < 1.1


def test_scoring_takes_measured_reading_time(local, clock):
    rate = lm.measure_reading(local, EXAMPLES)
    per_character, per_prompt = lm.count_tokens(local, EXAMPLES)
    n_characters = sum(len(e.question) + len(e.answer) for e in EXAMPLES)
    started = clock.now
    lm.score_examples(local, EXAMPLES, batch_size=16)
    n_tokens = per_character * n_characters + len(EXAMPLES) * per_prompt
    assert rate.estimate(0, n_tokens) == pytest.approx(clock.now - started, rel=0.25)


def test_prompt_tokens_are_counted_with_tokenizer_of_model(local):
    per_character, per_prompt = lm.count_tokens(local, EXAMPLES)
    prompts = tokenize_prompts(local.tokenizer, [render_cot_prompt(e) for e in EXAMPLES])
    n_characters = sum(len(e.question) for e in EXAMPLES)
    expected = sum(map(len, prompts))
    assert per_character * n_characters + per_prompt * len(EXAMPLES) == pytest.approx(expected)
