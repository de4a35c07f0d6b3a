"""The sandbox's text, tokenizer and models: what the bases may and may not have seen."""

import json
import random
from itertools import chain

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from bridgekd.core import prompts
from bridgekd.records import TrainRow
from bridgekd.sandbox import base_text, build, domains, world
from bridgekd.sandbox.tokenizer import make_tokenizer
from bridgekd.sandbox.wordings import understand

MAX_BYTES = 12_000_000


def texts(rows: list[TrainRow]) -> list[str]:
    parts = ((*row.prompt, *row.spans) for row in rows)
    return [getattr(part, "content", None) or getattr(part, "text", "") for part in chain(*parts)]


BASE = [
    *texts(base_text.assistant_rows(1500, 3)),
    *texts(base_text.student_rows(500, 3)),
    *(f"{r.instruction}\n{r.response}" for r in base_text.instruction_rows(1000, 3)),
]


def test_base_text_holds_no_question_of_the_world() -> None:
    for text in BASE:
        with pytest.raises(ValueError):
            domains.read(text)


def test_base_text_is_told_without_the_teachers_sentences() -> None:
    rng = random.Random(0)
    for _ in range(1500):
        clauses = domains.normalise(base_text.tale(rng).telling).replace(";", ".").split(" .")
        assert not [c for c in clauses for d in domains.DOMAINS if understand(d, c.strip())]


def test_base_text_is_the_same_for_the_same_seed() -> None:
    assert base_text.assistant_rows(50, 1) == base_text.assistant_rows(50, 1)
    assert base_text.instruction_rows(50, 1) != base_text.instruction_rows(50, 2)


def test_instructions_hold_both_requests() -> None:
    text = "\n".join(row.instruction for row in base_text.instruction_rows(200, 0))
    assert prompts.ANSWER_REQUEST in text
    assert prompts.EXPLAIN_REQUEST in text


def test_the_tokenizer_reads_back_what_it_writes() -> None:
    tokenizer = make_tokenizer()
    asked = [
        f"{e.question}\n{prompts.EXPLAIN_REQUEST}\n{world.reply(e.question, 0)}"
        for e in world.generate(300, 9)
    ]
    for text in [*asked, *BASE, prompts.ANSWER_REQUEST, "(B) ann", prompts.TEACHER_SYSTEM]:
        ids = tokenizer.encode(text)
        assert tokenizer.unk_token_id not in ids, text
        assert tokenizer.encode(tokenizer.decode(ids)) == ids, text
    assert tokenizer.unk_token_id in tokenizer.encode("zebra")


def test_the_checker_reads_what_the_tokenizer_writes() -> None:
    tokenizer = make_tokenizer()
    for example in world.generate(200, 2):
        text = tokenizer.decode(tokenizer.encode(world.reply(example.question, 0, 0.0)))
        report = world.check_steps(tokenizer.decode(tokenizer.encode(example.question)), text)
        assert (report.n_wrong, report.n_unread, report.n_missing) == (0, 0, 0)


@pytest.mark.parametrize("name", build.PLANS)
def test_a_shipped_model_loads_with_the_shared_tokenizer(name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(build.MODELS / name)
    model = AutoModelForCausalLM.from_pretrained(build.MODELS / name)
    assert tokenizer.get_vocab() == make_tokenizer().get_vocab()
    assert model.config.vocab_size == len(tokenizer)
    assert (
        model.num_parameters()
        == json.loads((build.MODELS / build.LOG).read_text())[name]["parameters"]
    )


def test_the_models_are_small_and_ten_times_apart() -> None:
    log = json.loads((build.MODELS / build.LOG).read_text())
    assert log["assistant-middle"]["parameters"] >= 10 * log["student"]["parameters"]
    size = sum(path.stat().st_size for path in build.MODELS.rglob("*") if path.is_file())
    assert size <= MAX_BYTES
