"""Real pretrained models: their tokens, prompts, scores, texts, adapters and exported folders.

BRIDGEKD_MODELS is a folder of models as plain Hugging Face folders. `.ci/run` builds the smallest
one. Larger ones are tested too if they are in the folder.
"""

import json
import os
import shutil
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import bridgekd
from bridgekd import lm
from bridgekd.io.row_files import read_rows
from bridgekd.lm.choice_logprobs import tokenize_choices
from bridgekd.lm.score_inputs import build_gold_rows, tokenize_answer_prompts
from bridgekd.lm.segments import align_tokens
from bridgekd.lm.shared_vocabulary import PROBE_TEXTS
from bridgekd.lm.token_bytes import compute_byte_ends, split_bytes
from bridgekd.lm.tokenization import (
    find_control_ids,
    find_stop_ids,
    render_prompt,
    tokenize_continuations,
    tokenize_prompts,
    tokenize_sequences,
)
from bridgekd.prompts import (
    build_cot_target,
    render_answer_prompt,
    render_cot_prompt,
    render_judge_prompt,
)
from bridgekd.recipe import LoraOptions, RuntimeOptions, TrainOptions
from bridgekd.records import Example, Prediction, TargetSpan, TrainingSequence
from bridgekd.sandbox.world import generate_examples
from bridgekd.selection.difficulty import MEASURES
from conftest import write_jsonl
from faulty_teacher import run_teacher_server
from test_pipeline import differing, rows_of

SMALLEST, *LARGER = ("smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct", "gemma-3-270m")
HOME = Path(os.environ.get("BRIDGEKD_MODELS", ""))
NAMES = [SMALLEST, *(name for name in LARGER if (HOME / name).is_dir())]
SYSTEM_PROMPTS = {
    SMALLEST: "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
    "qwen2.5-coder-0.5b-instruct": (
        "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    ),
}
TURN = "<|im_start|>{}\n{}<|im_end|>\n"
PENS = Example("pens", "Tom has 3 boxes of 4 pens and gives 5 pens away. How many are left?", "7")
EXAMPLES = [
    PENS,
    Example("capital", "  Which city is the capital of France?", "Paris"),
    Example(
        "café", "Is « café » an English word — or a French one? 🙂", "French", ("English", "French")
    ),
    Example("sum", "What is 2 + 3?", "5", ("4", "5", "23")),
]
RATIONALE = "3 × 4 = 12 pens.\nSo 12 - 5 = 7."
ROW = TrainingSequence("pens", render_cot_prompt(PENS), build_cot_target(RATIONALE, "7", 0.25))
# The tokens of ROW that count, written by hand.
SPACED = ["3", " ×", " ", "4", " =", " ", "1", "2", " pens"]
SPACED_END = ["So", " ", "1", "2", " -", " ", "5", " =", " ", "7"]
PIECES = {
    SMALLEST: (
        [*SPACED, ".", "\n", *SPACED_END, ".", "\n"],
        ["Answer", ":", " ", "7", "<|im_end|>"],
    ),
    "qwen2.5-coder-0.5b-instruct": (
        [*SPACED, ".\n", *SPACED_END, ".\n"],
        ["Answer", ":", " ", "7", "<|im_end|>"],
    ),
    "gemma-3-270m": (
        [*SPACED, ".", "\n", *SPACED_END, ".", "\n"],
        ["Answer", ":", " ", "7", "<eos>"],
    ),
}
N_NEW = 8
TRAIN = TrainOptions(batch_size=2, learning_rate=5e-3, n_evaluations=1)
LORA = LoraOptions(r=4, dropout=0.1)

pytestmark = [
    pytest.mark.real_model,
    pytest.mark.skipif("BRIDGEKD_MODELS" not in os.environ, reason="BRIDGEKD_MODELS is not set"),
]


@pytest.fixture(scope="module", params=NAMES)
def local(request):
    """Return the model in float32, as every stage loads it on a CPU."""
    return lm.load_model(HOME / request.param, device="cpu")


@pytest.fixture(scope="module")
def name(local):
    return Path(lm.load.get_model_name(local)).name


@pytest.fixture(scope="module")
def adapter(name, tmp_path_factory):
    """Return the folder of an adapter after two updates."""
    folder = tmp_path_factory.mktemp("adapter")
    train(name, folder)
    return folder


@pytest.fixture(scope="module")
def exported(adapter, tmp_path_factory):
    """Return the folder of the merged adapter, moved away from where it was written."""
    written = tmp_path_factory.mktemp("written") / "model"
    prompts = [render_cot_prompt(example) for example in EXAMPLES]
    assert lm.merge_adapter(adapter, written, max_new_tokens=N_NEW, prompts=prompts).notes == ()
    return Path(shutil.move(written, tmp_path_factory.mktemp("moved") / "student"))


def train(name, folder, progress=lambda *_: None):
    """Train an adapter on two rows, with a checkpoint after every update."""
    rows = [
        ROW,
        TrainingSequence(
            "sum", render_cot_prompt(EXAMPLES[3]), build_cot_target("2 + 3 = 5.", "(B) 5", 1.0)
        ),
    ]
    job = lm.TrainingJob(
        HOME / name, rows, folder, TRAIN, n_updates=2, seed=0, device="cpu", lora=LORA,
        runtime=RuntimeOptions(checkpoint_interval_s=0), workdir=folder / "resume",
    )  # fmt: skip
    return lm.fine_tune(job, progress)


def get_messages(prompt):
    return [{"role": m.role, "content": m.content} for m in prompt]


@cache
def load_tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


def tokenize_plainly(folder, prompt):
    """Return the tokens of a prompt as a user of transformers gets them, [1, n]."""
    inputs = load_tokenizer(folder).apply_chat_template(
        get_messages(prompt), add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    return inputs["input_ids"]


def generate_plainly(model, folder, examples=EXAMPLES[:3], **options):
    """Return the text of `model.generate` for the chain-of-thought prompt of every example."""
    texts = []
    for example in examples:
        ids = tokenize_plainly(folder, render_cot_prompt(example))
        out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **options)
        texts.append(
            load_tokenizer(folder).decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip()
        )
    return texts


def generate(local):
    prompts = [render_cot_prompt(example) for example in EXAMPLES[:3]]
    return lm.generate_texts(local, prompts, max_new_tokens=N_NEW, batch_size=len(prompts))


def read_inputs(local, work):
    """Return the tokens of the first forward pass of `work`, without padding, by row."""
    passes = []
    embeddings = local.model.get_input_embeddings()
    handle = embeddings.register_forward_pre_hook(lambda _, args: passes.append(args[0].tolist()))
    try:
        work()
    finally:
        handle.remove()
    return passes[0]


def log_likelihoods(local, prompt, target):
    """Return log p of every token of `target` after `prompt`, from all logits of one pass."""
    ids = torch.tensor([[*prompt, *target]])
    with torch.no_grad():
        log_p = local.model(input_ids=ids).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1)
    return log_p.gather(1, torch.tensor(target)[:, None])[:, 0].numpy()


def test_loss_counts_rationale_answer_and_end_only(local, name):
    (row,) = tokenize_sequences(local.tokenizer, [ROW])
    pieces = [local.tokenizer.decode([token]) for token in row.ids]
    rationale, answer = PIECES[name]
    counted = [*((p, 1.0) for p in rationale), *((p, 0.25) for p in answer)]
    n_prompt = len(row.ids) - len(counted)
    assert list(zip(pieces, row.weights, strict=True))[n_prompt:] == counted
    assert row.n_prompt == n_prompt and set(row.weights[:n_prompt]) == {0.0}
    (prompt,) = tokenize_prompts(local.tokenizer, [ROW.prompt])
    assert list(row.ids[:n_prompt]) == prompt
    stops = [local.tokenizer.decode([i]) for i in find_stop_ids(local.tokenizer, local.model)]
    assert answer[-1] in stops and all(stop.strip() for stop in stops)


def test_control_token_in_a_text_stays_text(local):
    """Only the template and the end of a row write control tokens."""
    tokenizer = local.tokenizer
    word, control_ids = str(tokenizer.eos_token), find_control_ids(tokenizer)
    odd, plain = (replace(PENS, question=f"What is {w} in a file?") for w in (word, "that"))
    targets = (build_cot_target(f"It is {word}.", word, 1), build_cot_target("So.", "7", 1))
    prompts = [render_cot_prompt(example) for example in (odd, plain)]
    rows = [TrainingSequence("a", *row) for row in zip(prompts, targets, strict=True)]
    trained = tokenize_sequences(tokenizer, rows)
    scored = tokenize_answer_prompts(tokenizer, [odd, plain])
    for pair in (trained, scored):
        counts = [sum(i in control_ids for i in row.ids) for row in pair]
        assert counts[0] == counts[1] > 0
    prompt, target = trained[0].ids[: trained[0].n_prompt], trained[0].ids[trained[0].n_prompt : -1]
    assert tokenizer.decode(target) == f"It is {word}.\nAnswer: {word}"
    assert tokenize_prompts(tokenizer, prompts[:1]) == [list(prompt)]


def test_prompt_has_system_prompt_of_model_or_is_plain_text(local, name):
    text = render_prompt(local.tokenizer, render_cot_prompt(PENS))
    (message,) = render_cot_prompt(PENS)
    if name in SYSTEM_PROMPTS:
        turns = TURN.format("system", SYSTEM_PROMPTS[name]) + TURN.format("user", message.content)
        assert text == f"{turns}<|im_start|>assistant\n"
    else:
        assert text == f"<bos>{message.content}\n"


@pytest.mark.parametrize("example", EXAMPLES[1:3], ids=lambda e: e.id)
def test_prompt_is_the_same_in_every_path(local, name, exported, example):
    prompt = render_cot_prompt(example)
    expected = tokenize_plainly(exported, prompt)[0].tolist()
    if name in SYSTEM_PROMPTS:  # the other model has no template of its own
        assert tokenize_plainly(HOME / name, prompt)[0].tolist() == expected
    target = build_cot_target(RATIONALE, "7", 1.0)
    (row,) = tokenize_sequences(local.tokenizer, [TrainingSequence("a", prompt, target)])
    assert list(row.ids[: row.n_prompt]) == expected
    (generated,) = read_inputs(
        local, lambda: lm.generate_texts(local, [prompt], max_new_tokens=1, batch_size=1)
    )
    assert generated == expected
    pairs = [(example, RATIONALE)]
    (scored,) = read_inputs(
        local, lambda: lm.estimate_confidence(local, pairs, measure="likelihood", batch_size=1)
    )
    assert scored[: len(expected)] == expected and len(scored) > len(expected)
    remote = lm.load_remote_tokenizer(HOME / name)
    assert remote.tokenize_prompts([prompt]) == [expected]
    assert remote.tokenize_text(remote.render_prompts([prompt])[0]) == expected


def test_tokens_of_two_models_are_matched_by_bytes(local):
    """A student learns from an assistant with another tokenizer (ALM). Both write all bytes of a
    text, also those of characters that only one of them splits.
    """
    student = AutoTokenizer.from_pretrained(HOME / SMALLEST)
    spans = [TargetSpan(text) for text in (*PROBE_TEXTS, EXAMPLES[2].question)]
    row = replace(ROW, spans=(*ROW.spans, *spans))
    texts, sides, ends = [span.text for span in row.spans], [], []
    for tokenizer in (student, local.tokenizer):
        tokens = zip(tokenize_continuations(tokenizer, texts), texts, strict=True)
        parts = [part for pair in tokens for part in split_bytes(tokenizer, *pair)]
        sides.append([*parts, b"end"])
        ends.append(compute_byte_ends(tokenizer, [row])[0])
        assert b"".join(parts) == row.text.encode()
    segments = align_tokens(*ends)
    for ours, theirs in segments:
        assert b"".join(sides[0][ours]) == b"".join(sides[1][theirs]) != b""
    n_single = sum(a.stop - a.start == 1 == b.stop - b.start for a, b in segments)
    assert len(segments) == len({*ends[0]} & {*ends[1]}) and n_single > 0.7 * len(segments)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: e.id)
def test_answer_prompt_of_scoring_is_that_of_training(local, example):
    prompt = render_answer_prompt(example)
    (expected,) = tokenize_prompts(local.tokenizer, [prompt])
    (scored,) = tokenize_answer_prompts(local.tokenizer, [example])
    assert list(scored.ids) == expected
    marked = [i for i, mark in zip(scored.ids, scored.is_question, strict=True) if mark]
    assert example.question.strip() in local.tokenizer.decode(marked)


def test_loss_is_mean_of_plain_loop(local):
    scored = lm.score_examples(local, EXAMPLES, batch_size=len(EXAMPLES))
    for example, value in zip(EXAMPLES, scored.difficulty, strict=True):
        (row,) = build_gold_rows(local.tokenizer, [example])
        prompt, target = row.ids[: -row.n_scored], row.ids[-row.n_scored :]
        text = local.tokenizer.decode(target).strip()
        assert text == {"pens": "7", "capital": "Paris"}.get(example.id, f"(B) {example.answer}")
        assert local.tokenizer.decode(prompt).rstrip().endswith("Answer:")
        assert value == pytest.approx(-log_likelihoods(local, prompt, target).mean(), abs=1e-4)
    assert np.allclose(np.linalg.norm(scored.embeddings, axis=1), 1, atol=1e-4)


def test_margin_of_choices_is_that_of_plain_loop(local):
    closed = [example for example in EXAMPLES if example.choices]
    measure = MEASURES.get("margin")
    scored = lm.score_examples(local, closed, measure=measure, batch_size=2)
    questions = tokenize_choices(local.tokenizer, closed)
    for question, value in zip(questions, scored.difficulty, strict=True):
        means = [
            log_likelihoods(local, row.ids[: -row.n_scored], row.ids[-row.n_scored :]).mean()
            for row in question.build_rows()
        ]
        assert value == pytest.approx(measure.score_choices(np.array(means)), abs=1e-4)


def test_confidence_is_that_of_plain_loop(local):
    pairs = [(PENS, f"{RATIONALE}\nAnswer: 7"), (EXAMPLES[1], "Answer: Berlin"), (EXAMPLES[3], "")]
    confidence = {
        measure: lm.estimate_confidence(local, pairs, measure=measure, batch_size=3)
        for measure in ("p_true", "likelihood")
    }
    tokenizer = local.tokenizer
    for i, (example, text) in enumerate(pairs[:2]):
        (judge, prompt) = tokenize_prompts(
            tokenizer, [render_judge_prompt(example, text), render_cot_prompt(example)]
        )
        true, false = (
            np.exp(
                log_likelihoods(
                    local, judge, tokenizer(word, add_special_tokens=False)["input_ids"][:1]
                )
            )[0]
            for word in ("True", "False")
        )
        assert confidence["p_true"][i] == pytest.approx(true / (true + false), abs=1e-4)
        target = tokenizer(text, add_special_tokens=False)["input_ids"]
        mean = log_likelihoods(local, prompt, target).mean()
        assert confidence["likelihood"][i] == pytest.approx(np.exp(mean), abs=1e-4)
    for values in confidence.values():
        assert values[2] == 0 and np.isfinite(values).all() and (values[:2] > 0).all()


def test_greedy_texts_are_those_of_plain_generate(local, name, exported):
    folder = HOME / name if name in SYSTEM_PROMPTS else exported  # which has a template
    assert generate(local) == generate_plainly(
        local.model, folder, max_new_tokens=N_NEW, do_sample=False
    )


def test_merging_an_adapter_changes_no_greedy_text(local, adapter, exported):
    texts = generate(lm.load_model(adapter, device="cpu"))
    assert texts != generate(local)
    plain = AutoModelForCausalLM.from_pretrained(exported)  # in float32: bfloat16 changes texts
    assert generate_plainly(plain, exported) == texts


def test_killed_training_resumes_to_the_same_bytes(name, adapter, tmp_path):
    with pytest.raises(KilledError):
        train(name, tmp_path, kill_at("train", 2))
    assert train(name, tmp_path).resumed_at == 1
    files = [folder / "adapter_model.safetensors" for folder in (adapter, tmp_path)]
    assert files[0].read_bytes() == files[1].read_bytes()


class KilledError(BaseException):
    """Ends a run at once: nothing in the package catches it."""


def kill_at(where, after=1):
    def kill(what, done, total):
        if what == where and done >= after:
            raise KilledError(where)

    return kill


PLACES = {
    "train assistant on answers": 2, "score": 0, "teacher": 1, "train assistant on rationales": 2,
    "annotate the pool": 1, "train student on instructions": 2, "train student on rationales": 2,
    "answer the test questions": 1,
}  # fmt: skip
RECIPE = """\
data: {train: train.jsonl, test: test.jsonl, validation_size: 2}
teacher: {provider: sandbox, model: sandbox-teacher, base_url: %s, api_key_env: null,
  max_tokens: 256, price: {input: 2.5, output: 10}, max_concurrent_requests: 2}
budget: {queries: 3}
assistant:
  model: model
  lora: {r: 4, dropout: 0.1}
  warm_up_size: 2
  warm_up_train: {updates: 2, n_evaluations: 1, batch_size: 2}
  train: {updates: 2, n_evaluations: 1, batch_size: 2}
  max_new_tokens: 4
student:
  model: model
  lora: {r: 4, dropout: 0.1}
  instruction_data: instruct.jsonl
  instruction_train: {updates: 2, n_evaluations: 1, batch_size: 2}
  train: {updates: 2, n_evaluations: 1, batch_size: 2, learning_rate: 0.005}
  max_new_tokens: 4
check: {filter: all}
annotate: {filter: all}
evaluate: {teacher_queries: 2}
runtime: {checkpoint_interval_s: 0}
device: cpu
"""


@pytest.fixture(scope="module")
def small_task(tmp_path_factory):
    """Return a task with eight questions for the first two layers of the smallest model.

    Its tokenizer, template and vocabulary are whole; a run loads it in a tenth of the time.
    """
    folder = tmp_path_factory.mktemp("task")
    shallow = AutoModelForCausalLM.from_pretrained(HOME / SMALLEST, num_hidden_layers=2)
    shallow.save_pretrained(folder / "model")
    AutoTokenizer.from_pretrained(HOME / SMALLEST).save_pretrained(folder / "model")
    rows = [asdict(e) | {"choices": None} for e in generate_examples(11, 0)]
    write_jsonl(folder / "train.jsonl", rows[:8])
    write_jsonl(folder / "test.jsonl", rows[8:])
    write_jsonl(
        folder / "instruct.jsonl",
        [{"instruction": f"Say {w}.", "response": w} for w in ("yes", "no")],
    )
    return folder


def copy_task(small_task, folder, teacher):
    shutil.copytree(small_task, folder)
    (folder / "task.yaml").write_text(RECIPE % teacher.base_url)
    return folder / "task.yaml"


@pytest.fixture(scope="module")
def finished(small_task, tmp_path_factory):
    """Return the recipe of a run that was not killed."""
    with run_teacher_server(wrong_rate=0.0) as teacher:
        recipe = copy_task(small_task, tmp_path_factory.mktemp("calm") / "task", teacher)
        bridgekd.run(recipe)
    return recipe


def test_run_killed_in_every_stage_ends_with_the_same_bytes(
    small_task, finished, teacher, tmp_path
):
    recipe = copy_task(small_task, tmp_path / "task", teacher)
    for where, after in PLACES.items():
        with pytest.raises(KilledError, match=where):
            bridgekd.run(recipe, progress=kill_at(where, after))
    bridgekd.run(recipe)
    stores = [path.parent / "runs" for path in (recipe, finished)]
    assert differing(rows_of(stores[0]), rows_of(stores[1])) == []
    manifests = [json.loads(p.read_text()) for p in stores[0].glob("*/manifest.json")]
    assert [m["stats"]["resumed_at"] for m in manifests if "resumed_at" in m["stats"]] == [1] * 4


def test_exported_folder_gives_the_answers_of_the_run_from_another_place(finished, tmp_path):
    store = finished.parent / "runs"
    folder = bridgekd.export("task", tmp_path / "student", store=store).folder
    moved = Path(shutil.move(folder, tmp_path / "elsewhere"))
    examples = read_rows(next(store.glob("load_test-*")) / "test.parquet", Example)
    model = AutoModelForCausalLM.from_pretrained(moved)
    texts = generate_plainly(model, moved, examples)
    predictions = [
        [row.text for row in read_rows(path, Prediction)]
        for path in store.glob("predict-*/predictions.parquet")
    ]
    assert texts in predictions and any(texts)
