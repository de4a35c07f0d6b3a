"""Brings answers that were paid for elsewhere into a ledger, from a file.

A JSON line is `{"request": ..., "response": ..., "price": ... or "cost_usd": ...}`, or has the
answer's `text` and perhaps `usage` in place of a whole response, or is one of the lines that
`ledger export` writes. What this keeps true: nothing is brought in before every row of the file has
been found good.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, cast

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
from bridgekd.ledger.sql import FINAL_STATES
from bridgekd.progress import Progress, ignore_progress
from bridgekd.recipe import OPENAI_URL, Price, find_published_price

# The price of lines that name neither a price nor a cost; "published": OpenAI's, by the package's
# dated table.
DefaultPrice = Price | Literal["published"] | None
ROWS_PER_COMMIT = 200  # answers in one durable transaction
KNOWN_FIELDS = (
    "request",
    "response",
    "price",
    "cost_usd",
    "text",
    "reasoning",
    "finish_reason",
    "usage",
)
MAX_STORED_TOKENS = MAX_TOKENS - 1  # of a count; what is more has been cut down to MOST_TOKENS


@dataclass(frozen=True, slots=True)
class ImportCounts:
    """How many lines became attempts, had a final attempt already, or are no answers."""

    n_new: int
    n_known: int
    n_skipped: int


@dataclass(frozen=True, slots=True)
class ImportedAnswer:
    """An answer that was paid for elsewhere; the fields are those of `Ledger.bring_in`."""

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
    """Brings the answers of the file at `path` into a ledger, which is made if need be.

    They belong to `run`; where it is None, to the run that the line names, else to "imported".
    InputError names the first bad line, and then nothing was brought in.
    """
    n_lines, n_answers = 0, 0
    total = _count_lines(path)
    for n_lines, answer in enumerate(_answers(path, default_price), start=1):
        if answer is not None:
            n_answers += 1
        if n_lines % ROWS_PER_COMMIT == 0:
            progress("Check", n_lines, max(total, n_lines))
    if not n_lines:
        raise InputError(f"{path} holds no lines, so there is nothing to bring in.")
    progress("Check", n_lines, n_lines)
    n_new, n_done = 0, 0
    answers = (a for a in _answers(path, default_price, checked=True) if a is not None)
    with Ledger(into, on_wait=on_wait) as ledger:
        while group := list(islice(answers, ROWS_PER_COMMIT)):
            n_new += _import_group(ledger, group, run)
            n_done += len(group)
            progress("Import", n_done, n_answers)
    return ImportCounts(n_new, n_done - n_new, n_lines - n_answers)


def _import_group(ledger: Ledger, group: list[ImportedAnswer], run: str | None) -> int:
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
    outcomes = ledger.run_in_transaction(works)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return sum(outcomes)


def _answers(
    path: Path, default_price: DefaultPrice, *, checked: bool = False
) -> Iterator[ImportedAnswer | None]:
    """The answer of every line; None for a line that is an attempt without one."""
    for number, row in _rows(path):
        try:
            is_ours = {"key", "state"} <= row.keys()
            answer = _parse_export(row) if is_ours else _parse_foreign(row, default_price)
            if answer is not None and not checked:
                _check_answer(answer)
        except ValueError as exc:
            reason = _format_error(exc) if isinstance(exc, ValidationError) else str(exc)
            raise InputError(
                f"{path} line {number}: {reason}; mend or remove the line. Nothing was imported."
            ) from exc
        yield answer


def _parse_foreign(row: Mapping[str, Any], default_price: DefaultPrice) -> ImportedAnswer:
    """A line that somebody else wrote."""
    if unknown := sorted(row.keys() - set(KNOWN_FIELDS)):
        raise ValueError(f"unknown field {unknown[0]!r}; known: {', '.join(KNOWN_FIELDS)}")
    if not isinstance(row.get("request"), dict):
        raise ValueError("it needs a request, the JSON object that was sent")
    raw, cost = row.get("response"), row.get("cost_usd")
    call = build_request_from_body(row["request"])
    if "text" in row or "usage" in row:
        kept = parse_recorded_answer({k: v for k, v in row.items() if k != "cost_usd"})
        raw = fill_token_counts(kept, get_messages(call)) if "text" in row else kept.body
    if isinstance(raw, dict):
        raw = json.dumps(raw)
    if not isinstance(raw, str) or parse_completion(raw).state not in FINAL_STATES:
        raise ValueError(f"the response is no chat completion: {str(raw)[:60]!r}")
    if cost is not None and row.get("price") is not None:
        raise ValueError("it has a price and a cost_usd; give one of them")
    if cost is not None and not (_is_number(cost) and 0 <= cost <= MAX_USD):
        raise ValueError(f"cost_usd is {cost!r}; it must be dollars, 0 or more")
    if parse_completion(raw).usage is None and not get_max_tokens(call):
        raise ValueError("nobody can tell its tokens: no usage in the response, no max_tokens")
    price = _price(row)
    if price is None and cost is None:
        price = _resolve_price(default_price, call["model"])
    return ImportedAnswer(
        call, raw, price, None if cost is None else to_microusd_rounded_up(float(cost))
    )


def _parse_export(row: Mapping[str, Any]) -> ImportedAnswer | None:
    """A line of our own export: what it was billed is taken over as it stands."""
    if row["state"] not in FINAL_STATES:
        return None
    call, raw, cost = row.get("request"), row.get("response"), row.get("cost_microusd")
    if not isinstance(call, dict) or compute_request_key(call) != row["key"]:
        raise ValueError(f"its key {str(row['key'])[:16]}... is not that of its request")
    check_request(call)
    says = parse_completion(raw).state if isinstance(raw, str) else "unparsable"
    refused = row["state"] == "refused" and says == "unparsable"
    if says != row["state"] and not refused:
        raise ValueError(f"its state is {row['state']!r}, but its response says {says!r}")
    if not isinstance(cost, int) or isinstance(cost, bool) or cost < 0:
        raise ValueError(f"cost_microusd is {cost!r}; it must be a whole number from 0")
    purpose = row.get("purpose")
    if purpose not in ("train", "measure"):
        raise ValueError(f"purpose is {purpose!r}; it must be train or measure")
    run = row.get("run")
    if not isinstance(run, str):
        raise ValueError(f"run is {run!r}; it must be a name")
    return ImportedAnswer(call, raw, _price(row), cost, run, cast(Purpose, purpose), refused)


def _check_answer(answer: ImportedAnswer) -> None:
    """ValueError for what the ledger could not store."""
    compute_request_key(answer.request)
    reply = parse_completion(answer.raw_response or "")
    most = compute_max_imported_cost(answer.request, reply, answer.price, answer.cost_microusd)
    bill = compute_imported_cost(reply, answer.price, max_cost=most)
    if max(bill.n_prompt_tokens, bill.n_completion_tokens) > MAX_STORED_TOKENS:
        raise ValueError(f"its tokens are beyond {MAX_STORED_TOKENS:,}, which cannot be")
    if max(bill.cost_microusd, most.cost_microusd) > MAX_USD * 1_000_000:
        raise ValueError(f"its cost is beyond ${MAX_USD:,}, which cannot be")


def _resolve_price(default_price: DefaultPrice, model: str) -> Price | None:
    """Return the default price of a model's answers. Raises InputError if none is published."""
    if default_price != "published":
        return default_price
    found = find_published_price(OPENAI_URL, model)
    if found is None:
        raise InputError(
            f"no published price of {model!r} is known; give --price INPUT,OUTPUT in dollars "
            "per million tokens"
        )
    return found.price.for_transport(has_batch_price=False)


def _price(row: Mapping[str, Any]) -> Price | None:
    if row.get("price") is None:
        return None
    price = Price.model_validate(row["price"])
    if price.batch_factor is not None:
        raise ValueError("price.batch_factor is not a price. Write the prices that were charged.")
    return price


def _format_error(exc: ValidationError) -> str:
    first = exc.errors()[0]
    return f"price.{'.'.join(map(str, first['loc']))}: {first['msg']}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        yield from read_jsonl(path)
    except OSError as exc:
        raise InputError(f"cannot read {path}: {exc.strerror}; name the file to import") from exc


def _count_lines(path: Path) -> int:
    """About how many lines there are, for the progress."""
    try:
        with open(path, "rb") as file:
            return sum(chunk.count(b"\n") for chunk in iter(partial(file.read, 1 << 20), b""))
    except OSError as exc:
        raise InputError(f"cannot read {path}: {exc.strerror}; name the file to import") from exc
