"""Generates texts with a served model: the counterpart of `lm.generate`, for the same tokens."""

import json
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from bridgekd.api_client.outcome import RequestOutcome
from bridgekd.errors import InputError, ServerUnavailableError
from bridgekd.inference_server.client import JsonBody, PromptFormat, ServedModel, send_all, send_one
from bridgekd.progress import Progress, ignore_progress
from bridgekd.records import Message
from bridgekd.rng import SEED_STEP
from bridgekd.throughput import OnSamples, TextLength, Throughput

Prompt = tuple[Message, ...]
PROMPT_FORMATS: tuple[PromptFormat, ...] = ("tokens", "text", "chat")
PROBE = (Message("user", "How much is 1 + 1?"),)
# A server may have defaults of its own, or read them from the model's folder. These turn them off.
NEUTRAL_SAMPLING = {"top_p": 1.0, "frequency_penalty": 0.0, "presence_penalty": 0.0}
EXTRA_NEUTRAL_SAMPLING = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}


def generate_texts(
    server: ServedModel,
    prompts: Sequence[Prompt],
    *,
    known: Mapping[int, str] | None = None,
    on_batch: Callable[[list[int], list[str], list[TextLength]], None] | None = None,
    label: str = "generate",
    **settings: Any,
) -> list[str]:
    """Return one text per prompt, in the order of the prompts, stripped of whitespace.

    The arguments are those of `lm.generate_texts`, and of `sample_texts` here. `on_batch` receives
    finished rows, at most `batch_size` at once and no more than are in flight. A row that is
    `known` is not requested. A row's seed depends on (seed, row) alone; the server decides whether
    the same seed gives the same text. A length counts the tokens of the text that is returned.
    """

    def on_samples(
        rows: list[int], texts: list[tuple[str, ...]], lengths: list[tuple[TextLength, ...]]
    ) -> None:
        if on_batch is not None:
            on_batch(rows, [samples[0] for samples in texts], [each[0] for each in lengths])

    known_samples = {row: (text,) for row, text in (known or {}).items()}
    sampled = sample_texts(
        server, prompts, 1, known=known_samples, on_batch=on_samples, label=label, **settings
    )
    return [samples[0] for samples in sampled]


def sample_texts(
    server: ServedModel,
    prompts: Sequence[Prompt],
    n: int,
    *,
    max_new_tokens: int,
    batch_size: int | None,
    temperature: float = 0.0,
    seed: int = 0,
    progress: Progress = ignore_progress,
    label: str = "sample",
    known: Mapping[int, Sequence[str]] | None = None,
    on_batch: OnSamples | None = None,
    until: re.Pattern[str] | None = None,
    throughput: Throughput | None = None,
) -> list[tuple[str, ...]]:
    """Return `n` texts per prompt. Text k has the seed `seed + k * SEED_STEP`."""
    known, started = known or {}, time.monotonic()
    todo = [row for row in range(len(prompts)) if row not in known]
    formatted = _format_prompts(server, [prompts[row] for row in todo])
    samples: dict[int, dict[int, tuple[str, TextLength]]] = {row: {} for row in todo}
    finished: list[int] = []
    n_done, spent = len(prompts) - len(todo), Throughput()
    max_finished = min(batch_size or sys.maxsize, server.options.max_concurrent_requests)

    def build_body(index: int) -> JsonBody:
        settings: dict[str, object] = {"max_tokens": max_new_tokens, "temperature": temperature}
        if temperature:
            settings["seed"] = compute_row_seed(seed + index % n * SEED_STEP, todo[index // n])
        return _build_body(server, formatted[index // n], settings)

    def flush() -> None:
        nonlocal n_done
        n_done += len(finished)
        if finished and on_batch is not None:
            texts, lengths = ([_sort_parts(samples[row], k) for row in finished] for k in (0, 1))
            on_batch(list(finished), texts, lengths)
        finished.clear()
        progress(label, n_done, len(prompts))

    def on_answer(index: int, answer: JsonBody) -> None:
        row = todo[index // n]
        _, length = samples[row][index % n] = _read_text(server, answer, until)
        _add_usage(answer, spent, length.is_cut_off)
        if len(samples[row]) == n:
            finished.append(row)
        if len(finished) >= max_finished:
            flush()

    progress(label, n_done, len(prompts))
    try:
        send_all(server, len(todo) * n, build_body, on_answer, label=label)
    finally:
        if finished:
            flush()
        if throughput is not None:
            spent.seconds = time.monotonic() - started
            throughput.add(**asdict(spent))
    rows = range(len(prompts))
    return [tuple(known[row]) if row in known else _sort_parts(samples[row], 0) for row in rows]


def compute_row_seed(seed: int, row: int) -> int:
    """Return the seed of one row, in 31 bits, which every server accepts."""
    return int(np.random.SeedSequence([seed, row]).generate_state(1)[0] >> 1)


def detect_prompt_format(server: ServedModel) -> tuple[ServedModel, tuple[str, ...]]:
    """Return the server with the first format that it accepts, and why it rejects earlier ones.

    A server that counts other tokens than were sent does not accept the format. Raises
    ServerUnavailableError if it accepts none.
    """
    n_tokens = len(server.tokenizer.tokenize_prompts([PROBE])[0])
    reasons: list[str] = []
    for prompt_format in PROMPT_FORMATS:
        candidate = replace(server, prompt_format=prompt_format)
        prompt = _format_prompts(candidate, [PROBE], check=False)[0]
        body = _build_body(candidate, prompt, {"max_tokens": 1, "temperature": 0.0})
        answer = send_one(candidate, body)
        if isinstance(answer, RequestOutcome):
            if prompt_format == "chat" and answer.kind == "refused":  # this question only
                return candidate, tuple(reasons)
            reasons.append(answer.reason)
            continue
        n_read = (answer.get("usage") or {}).get("prompt_tokens", n_tokens)
        if prompt_format == "chat" or n_read == n_tokens:
            return candidate, tuple(reasons)
        reasons.append(f"it read {n_read} tokens instead of {n_tokens}")
    raise ServerUnavailableError(
        f"{server.address} accepts no prompt: not as tokens ({reasons[0]}), not as text "
        f"({reasons[1]}), not as chat ({reasons[2]}). Use a server with /v1/completions."
    )


def _sort_parts(samples: Mapping[int, tuple[Any, ...]], part: int) -> tuple[Any, ...]:
    """Return the texts (part 0) or the lengths (part 1) of the samples of a row."""
    return tuple(samples[k][part] for k in sorted(samples))


def _read_text(
    server: ServedModel, answer: JsonBody, until: re.Pattern[str] | None
) -> tuple[str, TextLength]:
    # The server does not know `until`: it may have written more.
    text = _get_text(answer)
    end = until.search(text) if until else None
    text = (text[: end.end()] if end else text).strip()
    is_cut_off = end is None and answer["choices"][0].get("finish_reason") == "length"
    return text, TextLength(server.tokenizer.count_tokens(text), is_cut_off)


def _add_usage(answer: JsonBody, spent: Throughput, is_cut_off: bool) -> None:
    """Count one text, and its tokens if the server reports them."""
    usage = answer.get("usage") or {}
    spent.add(
        n_texts=1,
        n_prompt_tokens=int(usage.get("prompt_tokens") or 0),
        n_generated_tokens=int(usage.get("completion_tokens") or 0),
        seconds=0.0,
        n_cut_off=int(is_cut_off),
    )


def _format_prompts(
    server: ServedModel, prompts: Sequence[Prompt], *, check: bool = True
) -> list[Any]:
    """Return every prompt in the server's format.

    Raises InputError for a prompt that the server would read as other tokens.
    """
    if server.prompt_format == "chat":
        plain = server.tokenizer.find_plain_prompts(prompts)
        for prompt in (p for p, is_plain in zip(prompts, plain, strict=True) if not is_plain):
            raise InputError(
                f"{server.address} accepts only chats, and would read a control token in the text "
                f"{prompt[-1].content[:60]!r}. Use a server that accepts tokens, such as vLLM, or "
                f"set assistant.generation_backend: transformers."
            )
        if any(prompt[-1].role == "assistant" for prompt in prompts):
            raise InputError(
                f"{server.address} accepts only chats, and cannot continue a text that has begun. "
                "Use a server that accepts tokens, such as vLLM, or set "
                "assistant.generation_backend: transformers."
            )
        return [[{"role": m.role, "content": m.content} for m in prompt] for prompt in prompts]
    ids = server.tokenizer.tokenize_prompts(prompts)
    if server.prompt_format == "tokens":
        return list(ids)
    texts = server.tokenizer.render_prompts(prompts)
    for text, expected in zip(texts, ids, strict=True):
        if check and server.tokenizer.tokenize_text(text) != expected:
            raise InputError(
                f"{server.address} accepts only text, and would read {text[:60]!r} as other tokens "
                f"than in training. Use a server that accepts tokens, such as vLLM, or set "
                f"assistant.generation_backend: transformers."
            )
    return list(texts)


def _build_body(server: ServedModel, prompt: object, settings: Mapping[str, object]) -> JsonBody:
    body: dict[str, object] = {"model": server.endpoint.model, **NEUTRAL_SAMPLING, **settings}
    if server.prompt_format == "chat":
        return body | {"messages": prompt}
    stop = list(server.tokenizer.stop_ids)
    if server.prompt_format == "tokens":
        return body | {"prompt": prompt} | EXTRA_NEUTRAL_SAMPLING | {"stop_token_ids": stop}
    if settings["temperature"]:
        # `transformers serve` stays greedy with a temperature alone, and its defaults sample from
        # the 50 most probable tokens. Other servers ignore this field.
        config = {
            "do_sample": True,
            "temperature": settings["temperature"],
            "max_new_tokens": settings["max_tokens"],
            "top_k": 0,
            "eos_token_id": stop,
        }
        body["generation_config"] = json.dumps(config)
    return body | {"prompt": prompt}


def _get_text(answer: JsonBody) -> str:
    choice = answer["choices"][0]
    text = choice.get("text")
    if text is None:
        text = (choice.get("message") or {}).get("content")
    return str(text or "")
