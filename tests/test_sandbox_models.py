"""The base models of the sandbox, and the tools that make them and their pretraining texts."""

import json
import random
import sys
from dataclasses import asdict
from itertools import chain
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

sys.path.insert(0, str(Path(__file__).parents[1] / "tools" / "sandbox_models"))

import pretraining_corpus as corpus
from story_generator import generate_story
from train_base_models import LOG, MODEL_SPECS, MODELS, train_base_model
from world_tokenizer import make_tokenizer

from bridgekd import prompts
from bridgekd.records import TrainingSequence
from bridgekd.sandbox import domains, world
from bridgekd.sandbox.phrases import parse_step

MAX_BYTES = 4_000_000


def texts(rows: list[TrainingSequence]) -> list[str]:
    parts = ((*row.prompt, *row.spans) for row in rows)
    return [getattr(part, "content", None) or getattr(part, "text", "") for part in chain(*parts)]


CORPUS = [
    *texts(corpus.generate_assistant_corpus(1500, 3)),
    *texts(corpus.generate_student_corpus(500, 3)),
    *(f"{r.instruction}\n{r.response}" for r in corpus.generate_instructions(1000, 3)),
]


def test_corpus_contains_no_question_of_the_world() -> None:
    for text in CORPUS:
        with pytest.raises(ValueError):
            domains.parse_problem(text)


def test_stories_contain_no_sentence_of_the_teacher() -> None:
    rng = random.Random(0)
    for _ in range(1500):
        clauses = (
            domains.normalize_text(generate_story(rng).narration).replace(";", ".").split(" .")
        )
        assert not [c for c in clauses for d in domains.DOMAINS if parse_step(d, c.strip())]


def test_corpus_depends_on_seed_alone() -> None:
    assert corpus.generate_assistant_corpus(50, 1) == corpus.generate_assistant_corpus(50, 1)
    assert corpus.generate_instructions(50, 1) != corpus.generate_instructions(50, 2)


def test_shipped_instructions_are_those_of_the_generator() -> None:
    rows = (MODELS.parent / "instruct.jsonl").read_text().splitlines()
    generated = [asdict(row) for row in corpus.generate_instructions(1000, 0)]
    assert [json.loads(row) for row in rows] == generated


def test_instructions_hold_both_requests() -> None:
    text = "\n".join(row.instruction for row in corpus.generate_instructions(200, 0))
    assert prompts.ANSWER_INSTRUCTION in text
    assert prompts.COT_INSTRUCTION in text


def test_tokenizer_reads_back_what_it_writes() -> None:
    tokenizer = make_tokenizer()
    replies = [
        f"{e.question}\n{prompts.COT_INSTRUCTION}\n{world.generate_reply(e.question, 0)}"
        for e in world.generate_examples(300, 9)
    ]
    for text in [*replies, *CORPUS, prompts.ANSWER_INSTRUCTION, "(B) ann", prompts.TEACHER_SYSTEM]:
        ids = tokenizer.encode(text)
        assert tokenizer.unk_token_id not in ids, text
        assert tokenizer.encode(tokenizer.decode(ids)) == ids, text
    assert tokenizer.unk_token_id in tokenizer.encode("zebra")


def test_step_checker_reads_what_the_tokenizer_writes() -> None:
    tokenizer = make_tokenizer()
    for example in world.generate_examples(200, 2):
        text = tokenizer.decode(tokenizer.encode(world.generate_reply(example.question, 0, 0.0)))
        report = world.check_steps(tokenizer.decode(tokenizer.encode(example.question)), text)
        assert (report.n_wrong, report.n_unread, report.n_missing) == (0, 0, 0)


@pytest.mark.parametrize("name", MODEL_SPECS)
def test_shipped_model_loads_with_the_shared_tokenizer(name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODELS / name)
    model = AutoModelForCausalLM.from_pretrained(MODELS / name)
    assert tokenizer.get_vocab() == make_tokenizer().get_vocab()
    assert model.config.vocab_size == len(tokenizer)
    assert model.num_parameters() == json.loads(LOG.read_text())[name]["parameters"]


def test_shipped_models_are_small_and_ten_times_apart() -> None:
    log = json.loads(LOG.read_text())
    assert log["assistant-middle"]["parameters"] >= 10 * log["student"]["parameters"]
    size = sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file())
    assert size <= MAX_BYTES


def test_training_of_a_base_model_writes_a_model_that_loads(tmp_path: Path) -> None:
    line = train_base_model("student", tmp_path, n_rows=64)
    assert line["parameters"] == json.loads(LOG.read_text())["student"]["parameters"]
    shipped, made = (AutoTokenizer.from_pretrained(f / "student") for f in (MODELS, tmp_path))
    assert made.get_vocab() == shipped.get_vocab()
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "student").dtype.itemsize == 2
