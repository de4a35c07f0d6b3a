"""Generation of a stage: it ends with the answer, is saved batch by batch, and is counted."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from bridgekd import lm
from bridgekd.io.artifact_store import RESUME_DIR
from bridgekd.io.row_files import append_jsonl, read_appended_jsonl
from bridgekd.recipe import RuntimeOptions, TeacherOptions
from bridgekd.records import Message
from bridgekd.stages.model_backend import ResumableGenerator, wrap_local_model
from bridgekd.stages.run_context import RunContext
from bridgekd.throughput import Throughput
from tiny_models import write_babbler

CONTEXT = RunContext("run", TeacherOptions(model="none"), Path("none.db"))
PROMPTS = [(Message("user", "Who holds " + "the box " * (k % 3) + "?"),) for k in range(20)]


def make_generator(folder, batch_size=16):
    context = replace(CONTEXT, runtime=RuntimeOptions(assistant_batch_size=batch_size))
    return ResumableGenerator(folder, context, "assistant", max_new_tokens=30)


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """A model that repeats one answer line."""
    folder = tmp_path_factory.mktemp("model")
    return lm.load_model(write_babbler(folder, "Answer: Ann"), device="cpu")


@pytest.fixture(scope="module")
def backend(local):
    return wrap_local_model(local)


@pytest.fixture
def output_dir(tmp_path):
    (tmp_path / RESUME_DIR).mkdir()
    return tmp_path


def test_text_ends_with_its_answer(local, backend, output_dir):
    (free,) = lm.generate_texts(local, PROMPTS[:1], max_new_tokens=30, batch_size=1)
    assert free.startswith("Answer: Ann\nAnswer: Ann\n")
    generator = make_generator(output_dir)
    assert generator.generate(backend, PROMPTS, "write") == ["Answer: Ann"] * 20
    line = local.tokenizer("Answer: Ann\n", add_special_tokens=False)["input_ids"]
    assert generator.speed.n_generated_tokens == 20 * len(line)
    assert (
        len(read_appended_jsonl(output_dir / RESUME_DIR / "texts.jsonl")) == 2
    )  # batches of 16 and 4


@pytest.mark.parametrize(("max_new_tokens", "n_cut_off"), [(3, 20), (30, 0)])
def test_user_is_told_how_many_texts_were_cut_off(backend, output_dir, max_new_tokens, n_cut_off):
    messages = []
    context = replace(CONTEXT, notify=messages.append)
    generator = ResumableGenerator(output_dir, context, "student", max_new_tokens)
    generator.generate(backend, PROMPTS, "write")
    lengths = [length for _, length in generator.generate_with_lengths(backend, PROMPTS, "write")]
    assert sum(is_cut_off for _, is_cut_off in lengths) == n_cut_off
    assert max_new_tokens > 3 or {n for n, _ in lengths} == {3}
    speed = generator.report_speed()
    assert speed.n_cut_off == n_cut_off and speed.n_texts == 20
    assert len(messages) == (n_cut_off > 0)
    for message in messages:
        assert message.startswith("20 of 20 texts of the student reached 3 tokens before their")
        assert message.endswith("Set student.max_new_tokens to 6 or more.")


def test_saved_batches_are_reused_and_not_counted_again(local, backend, output_dir):
    make_generator(output_dir).generate(backend, PROMPTS, "write")
    file = output_dir / RESUME_DIR / "texts.jsonl"
    first, _ = read_appended_jsonl(file)
    file.unlink()
    append_jsonl(file, [[i, f"kept {i}", [2, False]] for i, *_ in first])
    generator = make_generator(output_dir)
    texts = generator.generate(backend, PROMPTS, "write")
    rows = {i for i, *_ in first}
    assert texts == [f"kept {i}" if i in rows else "Answer: Ann" for i in range(20)]
    assert generator.speed.to_stats().n_texts == 4
    line = len(local.tokenizer("Answer: Ann\n", add_special_tokens=False)["input_ids"])
    lengths = [length for _, length in generator.generate_with_lengths(backend, PROMPTS, "write")]
    assert lengths == [(2, False) if i in rows else (line, False) for i in range(20)]


def test_samples_end_with_their_answer_and_resume(backend, output_dir):
    generator, again = make_generator(output_dir, 2), make_generator(output_dir, 2)
    samples = generator.sample(backend, PROMPTS, 3, seed=0)
    assert [len(texts) for texts in samples] == [3] * 20
    assert all(text.count("Answer:") <= 1 for texts in samples for text in texts)
    assert generator.speed.n_texts == 60
    assert again.sample(backend, PROMPTS, 3, seed=0) == samples
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
        "n_cut_off": 0,
    }
