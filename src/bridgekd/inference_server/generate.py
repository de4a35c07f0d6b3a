"""What a served model writes: the counterpart of `lm.generate`, for the same prompt tokens."""

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
from bridgekd.throughput import Throughput

Prompt = tuple[Message, ...]
PROMPT_FORMATS: tuple[PromptFormat, ...] = ("tokens", "text", "chat")
PROBE = (Message("user", "How much is 1 + 1?"),)
# A server may have defaults of its own, or take them from the model's folder: here all of them off.
NEUTRAL_SAMPLING = {"top_p": 1.0, "frequency_penalty": 0.0, "presence_penalty": 0.0}
EXTRA_NEUTRAL_SAMPLING = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}


def generate_texts(
    server: ServedModel,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int,
    batch_size: int | None,
    known: Mapping[int, str] | None = None,
    on_batch: Callable[[list[int], list[str]], None] | None = None,
    label: str = "generate",
    **settings: Any,
) -> list[str]:
    """What the model writes after each prompt, in the order of the prompts, stripped of blanks.

    As `lm.generate`; `on_batch` is called for finished rows, at most `batch_size` at once and no
    more than are in flight, and a row that is `known` is not asked for. A row's seed hangs on
    (seed, row) alone; whether the same seed gives the same text is the server's to keep.
    """

    def told(rows: list[int], texts: list[tuple[str, ...]]) -> None:
        if on_batch is not None:
            on_batch(rows, [own[0] for own in texts])

    drawn = sample_texts(
        server, prompts, 1,
        max_new_tokens=max_new_tokens, batch_size=batch_size, label=label, on_batch=told,
        known={i: (text,) for i, text in (known or {}).items()}, **settings,
    )  # fmt: skip
    return [texts[0] for texts in drawn]


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
    on_batch: Callable[[list[int], list[tuple[str, ...]]], None] | None = None,
    until: re.Pattern[str] | None = None,
    throughput: Throughput | None = None,
) -> list[tuple[str, ...]]:
    """Return `n` texts per prompt. Text k has the seed `seed + k * SEED_STEP`."""
    known, started = known or {}, time.monotonic()
    todo = [i for i in range(len(prompts)) if i not in known]
    asked = _format_prompts(server, [prompts[i] for i in todo])
    texts: dict[int, dict[int, str]] = {i: {} for i in todo}
    waiting: list[int] = []
    n_done, spent = len(prompts) - len(todo), Throughput()

    def body(place: int) -> JsonBody:
        row, k = divmod(place, n)
        settings: dict[str, object] = {"max_tokens": max_new_tokens, "temperature": temperature}
        if temperature:
            settings["seed"] = compute_row_seed(seed + k * SEED_STEP, todo[row])
        return _body(server, asked[row], settings)

    def hand_over() -> None:
        nonlocal n_done
        n_done += len(waiting)
        if waiting and on_batch is not None:
            on_batch(list(waiting), [_sort_texts(texts[i]) for i in waiting])
        waiting.clear()
        progress(label, n_done, len(prompts))

    def keep(place: int, answer: JsonBody) -> None:
        row, k = divmod(place, n)
        texts[todo[row]][k] = _cut_at(_text(answer), until)
        _add_usage(answer, spent)
        if len(texts[todo[row]]) == n:
            waiting.append(todo[row])
        if len(waiting) >= min(batch_size or sys.maxsize, server.options.max_concurrent_requests):
            hand_over()

    progress(label, n_done, len(prompts))
    try:
        send_all(server, len(todo) * n, body, keep, what=label)
    finally:
        if waiting:
            hand_over()
        if throughput is not None:
            spent.seconds = time.monotonic() - started
            throughput.add(**asdict(spent))
    return [tuple(known[i]) if i in known else _sort_texts(texts[i]) for i in range(len(prompts))]


def _sort_texts(texts: Mapping[int, str]) -> tuple[str, ...]:
    return tuple(texts[k] for k in sorted(texts))


def _cut_at(text: str, until: re.Pattern[str] | None) -> str:
    # The server does not know `until`: it may have written more.
    end = until.search(text) if until else None
    return (text[: end.end()] if end else text).strip()


def _add_usage(answer: JsonBody, spent: Throughput) -> None:
    """One text more, and its tokens where the server tells them."""
    usage = answer.get("usage") or {}
    spent.add(
        n_texts=1,
        n_prompt_tokens=int(usage.get("prompt_tokens") or 0),
        n_generated_tokens=int(usage.get("completion_tokens") or 0),
        seconds=0.0,
    )


def compute_row_seed(seed: int, row: int) -> int:
    """The seed of one row, in 31 bits, which every server takes."""
    return int(np.random.SeedSequence([seed, row]).generate_state(1)[0] >> 1)


def detect_prompt_format(server: ServedModel) -> tuple[ServedModel, tuple[str, ...]]:
    """The server in the first form that it takes, and why it does not take those before.

    A server that counts other tokens than were sent has not taken them. Raises
    ServerUnavailableError where it takes none.
    """
    n_tokens = len(server.tokenizer.tokenize_prompts([PROBE])[0])
    reasons: list[str] = []
    for form in PROMPT_FORMATS:
        tried = replace(server, prompt_format=form)
        asked = _format_prompts(tried, [PROBE], check=False)[0]
        answer = send_one(tried, _body(tried, asked, {"max_tokens": 1, "temperature": 0.0}))
        if isinstance(answer, RequestOutcome):
            if form == "chat" and answer.kind == "refused":  # this question, not the form
                return tried, tuple(reasons)
            reasons.append(answer.reason)
            continue
        n_read = (answer.get("usage") or {}).get("prompt_tokens", n_tokens)
        if form == "chat" or n_read == n_tokens:
            return tried, tuple(reasons)
        reasons.append(f"it read {n_read} tokens where {n_tokens} were meant")
    raise ServerUnavailableError(
        f"the assistant's server at {server.endpoint.effective_base_url} takes a prompt neither "
        "as tokens "
        f"({reasons[0]}) nor as text ({reasons[1]}) nor as chat ({reasons[2]}); serve the model "
        "with one that has /v1/completions"
    )


def _format_prompts(
    server: ServedModel, prompts: Sequence[Prompt], *, check: bool = True
) -> list[Any]:
    """Every prompt in the server's form."""
    if server.prompt_format == "chat":
        return [[{"role": m.role, "content": m.content} for m in prompt] for prompt in prompts]
    ids = server.tokenizer.tokenize_prompts(prompts)
    if server.prompt_format == "tokens":
        return list(ids)
    texts = server.tokenizer.render_prompts(prompts)
    for text, wanted in zip(texts, ids, strict=True):
        if check and server.tokenizer.tokenize_text(text) != wanted:
            raise InputError(
                f"the assistant's server takes text alone, and would read {text[:60]!r} as other "
                "tokens than in training; use one that takes tokens, such as vLLM, or "
                "assistant.generation_backend: transformers"
            )
    return list(texts)


def _body(server: ServedModel, asked: Any, settings: Mapping[str, Any]) -> JsonBody:
    body: JsonBody = {"model": server.endpoint.model, **NEUTRAL_SAMPLING, **settings}
    if server.prompt_format == "chat":
        return body | {"messages": asked}
    if server.prompt_format == "text":
        return body | {"prompt": asked} | _sampled_by_transformers(server, settings)
    stop = {"stop_token_ids": list(server.tokenizer.stop_ids)}
    return body | {"prompt": asked} | EXTRA_NEUTRAL_SAMPLING | stop


def _sampled_by_transformers(server: ServedModel, settings: Mapping[str, Any]) -> JsonBody:
    """What makes `transformers serve` sample: a temperature alone leaves it greedy, and its own
    defaults cut the choice down to 50 tokens. Servers that do not know the field leave it unread.
    """
    if not settings["temperature"]:
        return {}
    stated = {
        "do_sample": True,
        "temperature": settings["temperature"],
        "max_new_tokens": settings["max_tokens"],
        "top_k": 0,
        "eos_token_id": list(server.tokenizer.stop_ids),
    }
    return {"generation_config": json.dumps(stated)}


def _text(answer: JsonBody) -> str:
    first = answer["choices"][0]
    said = first.get("text")
    if said is None:
        said = (first.get("message") or {}).get("content")
    return str(said or "")
