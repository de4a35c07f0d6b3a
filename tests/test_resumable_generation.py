"""What stages let a local model write: up to the answer, kept batch by batch, and counted."""

from dataclasses import asdict
from pathlib import Path

import pytest

from bridgekd import lm
from bridgekd.io.artifact_store import RESUME_DIR
from bridgekd.io.row_files import append_jsonl, read_appended_jsonl
from bridgekd.recipe import TeacherOptions
from bridgekd.records import Message
from bridgekd.stages.model_backend import LocalBackend
from bridgekd.stages.resumable_generation import ResumableGenerator
from bridgekd.stages.run_context import RunContext
from bridgekd.throughput import Throughput
from tiny_models import write_babbler

LIVE = RunContext("run", TeacherOptions(model="none"), Path("none.db"))
PROMPTS = [(Message("user", "Who holds " + "the box " * (k % 3) + "?"),) for k in range(20)]


def make_writer(folder, batch_size=16):
    return ResumableGenerator(folder, LIVE, batch_size, max_new_tokens=30)


@pytest.fixture(scope="module")
def babbler(tmp_path_factory):
    folder = tmp_path_factory.mktemp("babbler")
    return LocalBackend(lm.load_model(write_babbler(folder, "Answer: Ann"), device="cpu"))


@pytest.fixture
def out(tmp_path):
    (tmp_path / RESUME_DIR).mkdir()
    return tmp_path


def test_a_text_is_over_with_its_answer_though_the_model_would_go_on(babbler, out):
    (free,) = lm.generate_texts(babbler.model, PROMPTS[:1], max_new_tokens=30, batch_size=1)
    assert free.startswith("Answer: Ann\nAnswer: Ann\n")
    writer = make_writer(out)
    assert writer.generate(babbler, PROMPTS, "write") == ["Answer: Ann"] * 20
    line = babbler.model.tokenizer("Answer: Ann\n", add_special_tokens=False)["input_ids"]
    assert writer.speed.n_generated_tokens == 20 * len(line)
    assert len(read_appended_jsonl(out / RESUME_DIR / "texts.jsonl")) == 2  # batches of 16 and 4


def test_batches_of_an_earlier_try_are_kept_and_not_counted_again(babbler, out):
    make_writer(out).generate(babbler, PROMPTS, "write")
    file = out / RESUME_DIR / "texts.jsonl"
    first, _ = read_appended_jsonl(file)
    file.unlink()
    append_jsonl(file, [[i, f"kept {i}"] for i, _ in first])
    writer = make_writer(out)
    texts = writer.generate(babbler, PROMPTS, "write")
    rows = {i for i, _ in first}
    assert texts == [f"kept {i}" if i in rows else "Answer: Ann" for i in range(20)]
    assert writer.speed.to_stats().n_texts == 4


def test_samples_end_with_their_answer_and_go_on_behind_what_is_there(babbler, out):
    writer, again = make_writer(out, 2), make_writer(out, 2)
    drawn = writer.sample(babbler, PROMPTS, 3, seed=0)
    assert [len(texts) for texts in drawn] == [3] * 20
    assert all(text.count("Answer:") <= 1 for texts in drawn for text in texts)
    assert writer.speed.n_texts == 60
    assert again.sample(babbler, PROMPTS, 3, seed=0) == drawn
    assert again.speed.to_stats() is None


def test_throughput_is_tokens_over_seconds():
    speed = Throughput()
    for _ in range(2):
        speed.add(n_texts=3, n_prompt_tokens=40, n_generated_tokens=50, seconds=2.0)
    assert asdict(speed.to_stats()) == {
        "n_texts": 6,
        "n_prompt_tokens": 80,
        "n_generated_tokens": 100,
        "seconds": 4.0,
        "tokens_per_s": 25.0,
    }
