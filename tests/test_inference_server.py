"""The assistant on a server: the texts and numbers are those of the same model in process."""

import re
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from bridgekd import lm
from bridgekd.errors import InputError, ServerUnavailableError
from bridgekd.inference_server import generate, logprobs
from bridgekd.inference_server.open_server import get_served_name, open_server
from bridgekd.io.sources import resolve_model
from bridgekd.recipe import AssistantServerOptions
from bridgekd.records import Example, Message, TargetSpan, TrainingSequence
from bridgekd.selection.difficulty import MEASURES
from bridgekd.throughput import Throughput
from fake_inference_server import serving_model
from tiny_models import CHATML, write_tiny

PROMPTS = [(Message("user", "Who holds " + "the red box " * k + "?"),) for k in (3, 1, 4, 1, 5, 0)]
CLOSED = [
    Example("a", "Who holds the box ?", "Ann", ("Bob", "Ann", "dog")),
    Example("b", "Is the fox lazy ?", "no", ("yes", "no")),
]
OPEN = [Example("c", "Who holds the red box ?", "Ann"), Example("d", "Is 2 + 2 = 4 ?", "yes")]
SIZE = {"max_new_tokens": 12, "batch_size": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("served") / "model", "llama", "byte_level")


@pytest.fixture(scope="module")
def local(folder):
    return lm.load_model(folder, device="cpu")


def open_tiny_server(folder, url, workdir, **options):
    """Open the model of a folder at an address."""
    model = resolve_model(str(folder), Path(), None)
    options = {"base_url": url, "max_concurrent_requests": 3, "max_attempts": 2} | options
    options = AssistantServerOptions(**options)
    return open_server(model, options, workdir=workdir, folder=Path(), note=lambda text: None)


@pytest.fixture
def server(folder, tmp_path):
    """The tiny model behind HTTP, and its server, which keeps the requests."""
    name = get_served_name(resolve_model(str(folder), Path(), None))
    with (
        serving_model(folder, name) as http,
        open_tiny_server(folder, http.base_url, tmp_path) as server,
    ):
        http.bodies.clear()  # the probe
        yield server, http


def test_greedy_texts_are_those_of_the_model_in_process(server, local):
    there, http = server
    texts = generate.generate_texts(there, PROMPTS, **SIZE)
    assert texts == lm.generate_texts(local, PROMPTS, **SIZE)
    assert len(set(texts)) > 2
    requested = {tuple(body["prompt"]) for body in http.bodies}
    assert requested == {tuple(ids) for ids in there.tokenizer.tokenize_prompts(PROMPTS)}


def test_text_that_has_begun_is_continued_as_in_process(server, local):
    begun = [(*prompt, Message("assistant", "Ann holds")) for prompt in PROMPTS]
    texts = generate.generate_texts(server[0], begun, **SIZE)
    assert texts == lm.generate_texts(local, begun, **SIZE)
    with pytest.raises(InputError, match="accepts only chats, and cannot continue a text"):
        generate.generate_texts(replace(server[0], prompt_format="chat"), begun, **SIZE)


def test_the_gold_answer_s_loss_is_that_of_the_model_in_process(server, local):
    here = lm.score_examples(local, OPEN + CLOSED, batch_size=4)
    there = logprobs.score_examples(server[0], OPEN + CLOSED, batch_size=4)
    assert there.difficulty == pytest.approx(here.difficulty, abs=1e-4)
    assert there.embeddings.shape == (4, 0)


@pytest.mark.parametrize("measure", [MEASURES.get("entropy"), MEASURES.get("margin")])
def test_option_measures_are_those_of_the_model_in_process(server, local, measure):
    here = lm.score_examples(local, CLOSED, measure=measure, batch_size=4)
    there = logprobs.score_examples(server[0], CLOSED, measure=measure, batch_size=4)
    assert there.difficulty == pytest.approx(here.difficulty, abs=1e-4)


@pytest.mark.parametrize("measure", ["p_true", "likelihood"])
def test_confidence_is_that_of_the_model_in_process(server, local, measure):
    pairs = [(OPEN[0], "Bob gives it .\nAnswer: Ann"), (OPEN[1], " "), (CLOSED[0], "Answer: dog")]
    here = lm.estimate_confidence(local, pairs, measure=measure, batch_size=4)
    there = logprobs.estimate_confidence(server[0], pairs, measure=measure, batch_size=4)
    assert there == pytest.approx(here, abs=1e-5)
    assert there[1] == 0 and there[0] != there[2]


def test_log_probabilities_of_targets_are_those_of_the_model_in_process(server, local):
    spans = (TargetSpan("Bob gives it .\n"), TargetSpan("Answer: Ann"))
    prompts = ((Message("user", "Who has it?"),), (Message("user", "It is with Ann. Who?"),))
    rows = [TrainingSequence(str(i), prompt, spans) for i, prompt in enumerate(prompts)]
    here = lm.score_targets(local, rows, batch_size=4)
    there = logprobs.score_targets(server[0], rows, batch_size=4)
    for ours, theirs in zip(here, there, strict=True):
        assert theirs.logprobs == pytest.approx(ours.logprobs, abs=1e-4)
        assert replace(theirs, logprobs=ours.logprobs) == ours


def test_entropy_of_a_free_answer_is_refused(server):
    with pytest.raises(InputError, match="example c, which has no choices, needs"):
        logprobs.score_examples(server[0], OPEN, measure=MEASURES.get("entropy"), batch_size=4)


def test_texts_that_were_cut_off_are_counted(server):
    speed, ended, lengths, there = Throughput(), Throughput(), {}, server[0]

    def keep(rows, _, of_rows):
        lengths.update(zip(rows, of_rows, strict=True))

    texts = generate.generate_texts(there, PROMPTS, throughput=speed, on_batch=keep, **SIZE)
    longer = generate.generate_texts(there, PROMPTS, max_new_tokens=24, batch_size=2)
    is_cut_off = [a != b for a, b in zip(texts, longer, strict=True)]
    assert speed.n_cut_off == sum(is_cut_off) > 0
    assert [lengths[i].is_cut_off for i in range(len(PROMPTS))] == is_cut_off
    ids = there.tokenizer.tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert [lengths[i].n_tokens for i in range(len(PROMPTS))] == [len(row) for row in ids]
    generate.generate_texts(there, PROMPTS, until=re.compile("."), throughput=ended, **SIZE)
    assert ended.n_cut_off == 0


def test_a_sample_depends_on_its_row_and_seed_alone(server):
    def sample(prompts, **settings):
        return generate.generate_texts(server[0], prompts, temperature=0.7, **SIZE, **settings)

    one = sample(PROMPTS, seed=1)
    assert one == sample(PROMPTS, seed=1) != sample(PROMPTS, seed=2)
    assert one[1] != one[3]  # the same prompt, another row
    assert sample(PROMPTS, seed=1, known={0: "x"})[1:] == one[1:]


def test_what_the_server_or_the_model_s_folder_would_add_is_switched_off(server):
    generate.generate_texts(server[0], PROMPTS[:1], **SIZE)
    (body,) = server[1].bodies
    off = {"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
    assert off.items() <= body.items()
    assert body["stop_token_ids"] == list(server[0].tokenizer.stop_ids)


def test_no_more_is_in_flight_than_the_recipe_says(folder, tmp_path):
    name = get_served_name(resolve_model(str(folder), Path(), None))
    with serving_model(folder, name) as http:
        n_open, max_open, lock, answer = 0, 0, threading.Lock(), http.complete

        def counted(body):
            nonlocal n_open, max_open
            with lock:
                n_open += 1
                max_open = max(max_open, n_open)
            try:
                return answer(body)
            finally:
                with lock:
                    n_open -= 1

        http.complete = counted
        with open_tiny_server(folder, http.base_url, tmp_path, max_concurrent_requests=2) as server:
            generate.generate_texts(server, PROMPTS * 4, **SIZE)
    assert max_open == 2


def test_finished_rows_are_passed_on_and_known_rows_are_not_requested(server):
    there, http = server
    received = {}

    def keep(rows, texts, _):
        assert len(rows) <= 2
        received.update(zip(rows, texts, strict=True))

    whole = generate.generate_texts(there, PROMPTS, on_batch=keep, **SIZE)
    assert [received[i] for i in range(len(PROMPTS))] == whole
    http.bodies.clear()
    known = {i: received[i] for i in (0, 2, 3)}
    assert generate.generate_texts(there, PROMPTS, known=known, **SIZE) == whole
    assert len(http.bodies) == 3


def test_a_server_that_dies_is_one_sentence_and_its_rows_are_kept(folder, tmp_path):
    name, received = get_served_name(resolve_model(str(folder), Path(), None)), []
    with (
        serving_model(folder, name, dies_after=4) as http,  # the probe and three rows
        open_tiny_server(folder, http.base_url, tmp_path, max_concurrent_requests=1) as server,
        pytest.raises(
            ServerUnavailableError, match=r"stopped answering: .*2 attempts.*same command again"
        ),
    ):
        generate.generate_texts(
            server, PROMPTS, on_batch=lambda rows, texts, _: received.extend(rows), **SIZE
        )
    assert received == [0, 1, 2]


def test_saved_scores_are_not_requested_again(folder, local, tmp_path):
    name = get_served_name(resolve_model(str(folder), Path(), None))
    with (
        serving_model(folder, name, dies_after=4) as http,  # two probes and two rows
        open_tiny_server(folder, http.base_url, tmp_path, max_concurrent_requests=1) as server,
        pytest.raises(ServerUnavailableError),
    ):
        logprobs.score_examples(server, OPEN + CLOSED, batch_size=4)
    with (
        serving_model(folder, name) as http,
        open_tiny_server(folder, http.base_url, tmp_path) as server,
    ):
        found = logprobs.score_examples(server, OPEN + CLOSED, batch_size=4)
        assert len(http.bodies) == 2 + 2
    here = lm.score_examples(local, OPEN + CLOSED, batch_size=4)
    assert found.difficulty == pytest.approx(here.difficulty, abs=1e-4)


def test_a_server_without_log_probabilities_is_refused_with_what_to_do(folder, tmp_path):
    name = get_served_name(resolve_model(str(folder), Path(), None))
    with (
        serving_model(folder, name, dialect="mute") as http,
        open_tiny_server(folder, http.base_url, tmp_path) as server,
        pytest.raises(
            InputError, match=r"no log-probabilities .*Use assistant.scoring_backend: transf"
        ),
    ):
        logprobs.score_examples(server, OPEN, batch_size=4)


def test_a_server_that_takes_text_alone_reads_the_same_tokens(folder, local, tmp_path):
    name = get_served_name(resolve_model(str(folder), Path(), None))
    with (
        serving_model(folder, name, dialect="text") as http,
        open_tiny_server(folder, http.base_url, tmp_path) as server,
    ):
        assert server.prompt_format == "text"
        assert generate.generate_texts(server, PROMPTS, **SIZE) == lm.generate_texts(
            local, PROMPTS, **SIZE
        )
        with pytest.raises(InputError, match="it does not accept tokens as a prompt"):
            logprobs.score_examples(server, OPEN, batch_size=4)


def with_bos(folder, template):
    """Write a model folder whose tokenizer puts BOS before every text, as Llama's does."""
    from tokenizers.processors import TemplateProcessing

    write_tiny(folder, template=template)
    tokenizer = lm.load_remote_tokenizer(folder).tokenizer
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    tokenizer.save_pretrained(folder)
    return folder


def test_a_bos_that_the_server_adds_is_not_there_twice(tmp_path):
    tokens = lm.load_remote_tokenizer(with_bos(tmp_path / "model", "{{ bos_token }}" + CHATML))
    (ids,), (text,) = tokens.tokenize_prompts(PROMPTS[:1]), tokens.render_prompts(PROMPTS[:1])
    assert ids[0] == 1 != ids[1] and tokens.tokenize_text(text) == ids


def test_a_server_that_would_read_other_tokens_is_refused(tmp_path):
    folder = with_bos(tmp_path / "model", CHATML)  # trained without BOS
    name = get_served_name(resolve_model(str(folder), Path(), None))
    with (
        serving_model(folder, name, dialect="text") as http,
        pytest.raises(
            ServerUnavailableError, match=r"not as text \(it read \d+ tokens instead of \d+"
        ),
        open_tiny_server(folder, http.base_url, tmp_path),
    ):
        pass


def test_another_model_never_answers(folder, tmp_path):
    with (
        serving_model(folder, "model-of-yesterday") as http,
        pytest.raises(
            ServerUnavailableError,
            match=r"serves model-of-yesterday: serve /.*model there under the name",
        ) as e,
        open_tiny_server(folder, http.base_url, tmp_path),
    ):
        pass
    assert get_served_name(resolve_model(str(folder), Path(), None)) in str(e.value)
    assert http.bodies == []


def test_a_server_that_is_not_there_is_named_with_what_to_serve(folder, tmp_path):
    with (
        pytest.raises(ServerUnavailableError, match=r"127.0.0.1:9/v1 does not answer .*: serve /"),
        open_tiny_server(folder, "http://127.0.0.1:9/v1", tmp_path),
    ):
        pass


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({}, "Give either a command"),
        ({"command": "x {model} {port}", "base_url": "http://h/v1"}, "Give either a command"),
        ({"command": "vllm serve {model}"}, r"has no \{port\}"),
        ({"command": "x {model} {port} --api-key sk-1"}, "The command contains a key"),
        ({"base_url": "http://me:sk-1@h/v1"}, "without a user, key or query"),
    ],
)
def test_a_server_is_a_command_or_an_address(options, complaint):
    with pytest.raises(ValidationError, match=complaint):
        AssistantServerOptions(**options)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`", "ignore:Setting `save_")
@pytest.mark.parametrize("modules", ["all-linear", ("q_proj", "lm_head")])  # a tied head, too
def test_an_adapter_is_served_as_plain_weights(folder, tmp_path, modules):
    import torch

    from bridgekd.recipe import LoraOptions

    lora = LoraOptions(r=2, target_modules=modules)
    local = lm.load_model(folder, device="cpu", trainable=True, lora=lora)
    for name, weights in local.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, generator=torch.Generator().manual_seed(1))
    lm.save_model(local, tmp_path / "adapter")
    plain = lm.prepare_model_folder(tmp_path / "adapter", None, tmp_path, "adapter-1")
    assert not (plain / "adapter_config.json").exists()
    here, there = (
        lm.load_model(tmp_path / "adapter", device="cpu"),
        lm.load_model(plain, device="cpu"),
    )
    texts = lm.generate_texts(here, PROMPTS, **SIZE)
    assert texts == lm.generate_texts(there, PROMPTS, **SIZE)
    assert texts != lm.generate_texts(lm.load_model(folder, device="cpu"), PROMPTS, **SIZE)
    scores = [lm.score_examples(m, OPEN, batch_size=2).difficulty for m in (here, there)]
    assert np.allclose(*scores, atol=1e-4)


def test_server_with_its_own_template_gets_no_control_token_of_a_question(server):
    chat = replace(server[0], prompt_format="chat")
    with pytest.raises(InputError, match="would read a control token in the text 'Who</s> holds"):
        generate.generate_texts(chat, [(Message("user", "Who</s> holds it ?"),)], **SIZE)
