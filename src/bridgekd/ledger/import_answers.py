"""Import answers that were paid for elsewhere from a file of JSON lines.

A line is `{"request": ..., "response": ..., "price": ... or "cost_usd": ...}`, or has the answer's
`text`, and optionally `usage`, instead of a whole response, or is a line of `ledger export`. All
lines are checked before any of them is imported.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from bridgekd.api_client.chat_completion import MAX_TOKENS, MAX_USD, parse_completion
from bridgekd.api_client.recorded_answers import fill_token_counts, parse_recorded_answer
from bridgekd.api_client.request_key import compute_request_key, get_max_tokens, get_messages
from bridgekd.cost.request_cost import to_microusd_rounded_up
from bridgekd.errors import InputError
from bridgekd.io.row_files import read_jsonl
from bridgekd.ledger.imported_request import (
    build_request_from_body,
    check_request,
    compute_imported_cost,
    compute_max_imported_cost,
)
from bridgekd.ledger.ledger import Ledger, Purpose
from bridgekd.ledger.sql import FINAL_STATES, UNANSWERED_STATES
from bridgekd.messages import format_value
from bridgekd.progress import Progress, ignore_progress
from bridgekd.recipe import OPENAI_URL, Price, find_published_price

# The price of lines with neither a price nor a cost; "published": OpenAI's published price.
DefaultPrice = Price | Literal["published"] | None
ROWS_PER_COMMIT = 200  # answers in one durable transaction
KNOWN_FIELDS = (
    "request", "response", "price", "cost_usd", "text", "reasoning", "finish_reason", "usage",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ImportCounts:
    """The number of lines that were imported, that were known already, and without an answer."""

    n_new: int
    n_known: int
    n_skipped: int


@dataclass(frozen=True, slots=True)
class _ImportedAnswer:
    """The arguments of `Ledger.import_answer`."""

    request: Mapping[str, Any]
    raw_response: str | None
    price: Price | None
    cost_microusd: int | None
    run: str = "imported"
    purpose: Purpose = "train"
    refused: bool = False


def import_answers(
    path: Path,
    into: Path,
    *,
    run: str | None = None,
    default_price: DefaultPrice = None,
    progress: Progress = ignore_progress,
    on_wait: Callable[[str], None] = lambda note: None,
) -> ImportCounts:
    """Import the answers of the file at `path` into a ledger, which is created if needed.

    run: the run that they belong to. Default: the run in the line, else "imported". Raises
    InputError for the first wrong line; then nothing is imported.
    """
    n_lines, n_answers = 0, 0
    total = _count_lines(path)
    for n_lines, answer in enumerate(_parse_answers(path, default_price), start=1):
        n_answers += answer is not None
        if n_lines % ROWS_PER_COMMIT == 0:
            progress("Check", n_lines, max(total, n_lines))
    if not n_lines:
        raise InputError(f"{path} has no lines. Name a file with answers.")
    progress("Check", n_lines, n_lines)
    n_new, n_done = 0, 0
    answers = (a for a in _parse_answers(path, default_price, checked=True) if a is not None)
    with Ledger(into, on_wait=on_wait) as ledger:
        while group := list(islice(answers, ROWS_PER_COMMIT)):
            n_new += _import_group(ledger, group, run)
            n_done += len(group)
            progress("Import", n_done, n_answers)
    return ImportCounts(n_new, n_done - n_new, n_lines - n_answers)


def _import_group(ledger: Ledger, group: list[_ImportedAnswer], run: str | None) -> int:
    """Import answers in one transaction. Return how many of them are new."""
    works = [
        partial(
            ledger.import_answer,
            answer.request,
            answer.raw_response,
            price=answer.price,
            run=run or answer.run,
            purpose=answer.purpose,
            cost_microusd=answer.cost_microusd,
            refused=answer.refused,
        )
        for answer in group
    ]
    n_new = 0
    for outcome in ledger.run_in_transaction(works):
        if isinstance(outcome, BaseException):
            raise outcome
        n_new += outcome
    return n_new


def _parse_answers(
    path: Path, default_price: DefaultPrice, *, checked: bool = False
) -> Iterator[_ImportedAnswer | None]:
    """Yield the answer of every line; None for an exported attempt without an answer."""
    for number, row in read_jsonl(path):
        try:
            is_export = {"key", "state"} <= row.keys()
            answer = _parse_export(row) if is_export else _parse_foreign(row, default_price)
            if answer is not None and not checked:
                _check_answer(answer)
        except ValueError as exc:
            reason = str(exc).rstrip(".")
            if isinstance(exc, ValidationError):
                first = exc.errors()[0]
                reason = f"price.{'.'.join(map(str, first['loc']))}: {first['msg']}"
            raise InputError(
                f"{path} line {number}: {reason}. Fix or remove the line. Nothing was imported."
            ) from exc
        yield answer


def _parse_foreign(row: Mapping[str, object], default_price: DefaultPrice) -> _ImportedAnswer:
    """Return the answer of a line that is not from `ledger export`."""
    if unknown := sorted(row.keys() - set(KNOWN_FIELDS)):
        raise ValueError(
            f"Unknown field {format_value(unknown[0])}. Known: {', '.join(KNOWN_FIELDS)}."
        )
    body, raw, cost = row.get("request"), row.get("response"), row.get("cost_usd")
    if not isinstance(body, dict):
        raise ValueError("The request is missing. Add the JSON object that was sent.")
    request = build_request_from_body(body)
    if "text" in row or "usage" in row:
        recorded = parse_recorded_answer({k: v for k, v in row.items() if k != "cost_usd"})
        raw = recorded.body
        if "text" in row:
            raw = fill_token_counts(recorded, get_messages(request))
    if isinstance(raw, dict):
        raw = json.dumps(raw)
    if not isinstance(raw, str) or parse_completion(raw).state not in FINAL_STATES:
        raise ValueError(f"The response is not a chat completion: {format_value(raw)}.")
    if cost is not None and row.get("price") is not None:
        raise ValueError("The line has a price and a cost_usd. Give one of them.")
    cost_microusd = None
    if cost is not None:
        if isinstance(cost, bool) or not isinstance(cost, int | float) or not 0 <= cost <= MAX_USD:
            raise ValueError(f"cost_usd is {format_value(cost)}. It must be at least 0 dollars.")
        cost_microusd = to_microusd_rounded_up(float(cost))
    if parse_completion(raw).usage is None and not get_max_tokens(request):
        raise ValueError(
            "The number of tokens is unknown: the response has no usage, the request no max_tokens."
        )
    price = _parse_price(row)
    if price is None and cost is None:
        price = _resolve_price(default_price, str(request["model"]))
    return _ImportedAnswer(request, raw, price, cost_microusd)


def _parse_export(row: Mapping[str, object]) -> _ImportedAnswer | None:
    """Return the answer of a line of `ledger export`, at its cost there."""
    if row["state"] in UNANSWERED_STATES:
        return None
    if row["state"] not in FINAL_STATES:
        raise ValueError(f"The state {format_value(row['state'])} is not one of a ledger.")
    request, raw, cost = row.get("request"), row.get("response"), row.get("cost_microusd")
    if not isinstance(request, dict) or compute_request_key(request) != row["key"]:
        raise ValueError(f"The key {format_value(row['key'])} does not match the request.")
    check_request(request)
    raw = raw if isinstance(raw, str) else None
    state = parse_completion(raw or "").state
    refused = row["state"] == "refused" and state == "unparsable"
    if state != row["state"] and not refused:
        raise ValueError(
            f"The state is {format_value(row['state'])}, but the response is {state!r}."
        )
    if not isinstance(cost, int) or isinstance(cost, bool) or cost < 0:
        raise ValueError(
            f"cost_microusd is {format_value(cost)}. It must be a whole number of at least 0."
        )
    purpose, run = row.get("purpose"), row.get("run")
    if purpose not in ("train", "measure"):
        raise ValueError(f"purpose is {format_value(purpose)}. It must be train or measure.")
    if not isinstance(run, str):
        raise ValueError(f"run is {format_value(run)}. It must be a name.")
    price = _parse_price(row)
    return _ImportedAnswer(request, raw, price, cost, run, purpose, refused)


def _check_answer(answer: _ImportedAnswer) -> None:
    """Raise ValueError for an answer that the ledger could not store."""
    compute_request_key(answer.request)
    reply = parse_completion(answer.raw_response or "")
    max_cost = compute_max_imported_cost(answer.request, reply, answer.price, answer.cost_microusd)
    cost = compute_imported_cost(reply, answer.price, max_cost=max_cost)
    # parse_usage cuts larger counts to MAX_TOKENS.
    if max(cost.n_prompt_tokens, cost.n_completion_tokens) >= MAX_TOKENS:
        raise ValueError(f"The number of tokens is above the maximum of {MAX_TOKENS - 1:,}.")
    if max(cost.cost_microusd, max_cost.cost_microusd) > MAX_USD * 1_000_000:
        raise ValueError(f"The cost is above the maximum of ${MAX_USD:,}.")


def _resolve_price(default_price: DefaultPrice, model: str) -> Price | None:
    if default_price != "published":
        return default_price
    published = find_published_price(OPENAI_URL, model)
    if published is None:
        raise InputError(
            f"There is no published price of {format_value(model)}. Pass --price INPUT,OUTPUT in "
            "dollars per million tokens."
        )
    return published.price.for_transport(has_batch_price=False)


def _parse_price(row: Mapping[str, object]) -> Price | None:
    if row.get("price") is None:
        return None
    price = Price.model_validate(row["price"])
    if price.batch_factor is not None:
        raise ValueError("price.batch_factor is not a price. Write the prices that were charged.")
    return price


def _count_lines(path: Path) -> int:
    """Return about how many lines a file has, for the progress."""
    try:
        with open(path, "rb") as file:
            return sum(chunk.count(b"\n") for chunk in iter(partial(file.read, 1 << 20), b""))
    except OSError as exc:
        raise InputError(f"Cannot read {path}: {exc.strerror}. Name the file to import.") from exc
