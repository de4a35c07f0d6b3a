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

from bridgekd.config import OPENAI_URL, Price, published_price
from bridgekd.core.calls import call_key, max_tokens_of, messages_of
from bridgekd.core.costs import microusd_up
from bridgekd.core.elsewhere import bill_elsewhere, call_of_body, check_call, most_elsewhere
from bridgekd.core.recordings import counted, read_recording
from bridgekd.core.replies import MOST_TOKENS, MOST_USD, read_reply
from bridgekd.edges.rows import read_jsonl
from bridgekd.errors import BadInput
from bridgekd.ledger.attempts import FINAL
from bridgekd.ledger.ledger import Ledger, Purpose
from bridgekd.progress import Progress, silent

# The price of lines that name neither a price nor a cost; "published": OpenAI's, by the package's
# dated table.
DefaultPrice = Price | Literal["published"] | None
GROUP = 200  # answers in one durable transaction
FIELDS = ("request", "response", "price", "cost_usd", "text", "reasoning", "finish_reason", "usage")
LARGEST = MOST_TOKENS - 1  # of a count; what is more has been cut down to MOST_TOKENS


@dataclass(frozen=True, slots=True)
class Imported:
    """How many lines became attempts, had a final attempt already, or are no answers."""

    n_new: int
    n_known: int
    n_skipped: int


@dataclass(frozen=True, slots=True)
class Answer:
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
    progress: Progress = silent,
    on_wait: Callable[[str], None] = lambda note: None,
) -> Imported:
    """Brings the answers of the file at `path` into a ledger, which is made if need be.

    They belong to `run`; where it is None, to the run that the line names, else to "imported".
    BadInput names the first bad line, and then nothing was brought in.
    """
    n_lines, n_answers = 0, 0
    total = _count_lines(path)
    for n_lines, answer in enumerate(_answers(path, default_price), start=1):
        if answer is not None:
            n_answers += 1
        if n_lines % GROUP == 0:
            progress("Check", n_lines, max(total, n_lines))
    if not n_lines:
        raise BadInput(f"{path} holds no lines, so there is nothing to bring in.")
    progress("Check", n_lines, n_lines)
    n_new, n_done = 0, 0
    answers = (a for a in _answers(path, default_price, checked=True) if a is not None)
    with Ledger(into, on_wait=on_wait) as ledger:
        while group := list(islice(answers, GROUP)):
            n_new += _bring_in(ledger, group, run)
            n_done += len(group)
            progress("Import", n_done, n_answers)
    return Imported(n_new, n_done - n_new, n_lines - n_answers)


def _bring_in(ledger: Ledger, group: list[Answer], run: str | None) -> int:
    works = [
        partial(
            ledger.bring_in,
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
    outcomes = ledger.together(works)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return sum(outcomes)


def _answers(
    path: Path, default_price: DefaultPrice, *, checked: bool = False
) -> Iterator[Answer | None]:
    """The answer of every line; None for a line that is an attempt without one."""
    for number, row in _rows(path):
        try:
            is_ours = {"key", "state"} <= row.keys()
            answer = _attempt(row) if is_ours else _recording(row, default_price)
            if answer is not None and not checked:
                _check(answer)
        except ValueError as exc:
            reason = _words(exc) if isinstance(exc, ValidationError) else str(exc)
            raise BadInput(
                f"{path} line {number}: {reason}; mend or remove the line. Nothing was imported."
            ) from exc
        yield answer


def _recording(row: Mapping[str, Any], default_price: DefaultPrice) -> Answer:
    """A line that somebody else wrote."""
    if unknown := sorted(row.keys() - set(FIELDS)):
        raise ValueError(f"unknown field {unknown[0]!r}; known: {', '.join(FIELDS)}")
    if not isinstance(row.get("request"), dict):
        raise ValueError("it needs a request, the JSON object that was sent")
    raw, cost = row.get("response"), row.get("cost_usd")
    call = call_of_body(row["request"])
    if "text" in row or "usage" in row:
        kept = read_recording({k: v for k, v in row.items() if k != "cost_usd"})
        raw = counted(kept, messages_of(call)) if "text" in row else kept.body
    if isinstance(raw, dict):
        raw = json.dumps(raw)
    if not isinstance(raw, str) or read_reply(raw).state not in FINAL:
        raise ValueError(f"the response is no chat completion: {str(raw)[:60]!r}")
    if cost is not None and row.get("price") is not None:
        raise ValueError("it has a price and a cost_usd; give one of them")
    if cost is not None and not (_is_number(cost) and 0 <= cost <= MOST_USD):
        raise ValueError(f"cost_usd is {cost!r}; it must be dollars, 0 or more")
    if read_reply(raw).usage is None and not max_tokens_of(call):
        raise ValueError("nobody can tell its tokens: no usage in the response, no max_tokens")
    price = _price(row)
    if price is None and cost is None:
        price = _resolve_price(default_price, call["model"])
    return Answer(call, raw, price, None if cost is None else microusd_up(float(cost)))


def _attempt(row: Mapping[str, Any]) -> Answer | None:
    """A line of our own export: what it was billed is taken over as it stands."""
    if row["state"] not in FINAL:
        return None
    call, raw, cost = row.get("request"), row.get("response"), row.get("cost_microusd")
    if not isinstance(call, dict) or call_key(call) != row["key"]:
        raise ValueError(f"its key {str(row['key'])[:16]}... is not that of its request")
    check_call(call)
    says = read_reply(raw).state if isinstance(raw, str) else "unparsable"
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
    return Answer(call, raw, _price(row), cost, run, cast(Purpose, purpose), refused)


def _check(answer: Answer) -> None:
    """ValueError for what the ledger could not store."""
    call_key(answer.request)
    reply = read_reply(answer.raw_response or "")
    most = most_elsewhere(answer.request, reply, answer.price, answer.cost_microusd)
    bill = bill_elsewhere(reply, answer.price, most=most)
    if max(bill.n_prompt_tokens, bill.n_completion_tokens) > LARGEST:
        raise ValueError(f"its tokens are beyond {LARGEST:,}, which cannot be")
    if max(bill.cost_microusd, most.cost_microusd) > MOST_USD * 1_000_000:
        raise ValueError(f"its cost is beyond ${MOST_USD:,}, which cannot be")


def _resolve_price(default_price: DefaultPrice, model: str) -> Price | None:
    """Return the default price of a model's answers. Raises BadInput if none is published."""
    if default_price != "published":
        return default_price
    found = published_price(OPENAI_URL, model)
    if found is None:
        raise BadInput(
            f"no published price of {model!r} is known; give --price INPUT,OUTPUT in dollars "
            "per million tokens"
        )
    return found.price.for_transport(has_batch_price=False)


def _price(row: Mapping[str, Any]) -> Price | None:
    if row.get("price") is None:
        return None
    price = Price.model_validate(row["price"])
    if price.batch is not None:
        raise ValueError("price.batch is no price; give the prices that were charged")
    return price


def _words(exc: ValidationError) -> str:
    first = exc.errors()[0]
    return f"price.{'.'.join(map(str, first['loc']))}: {first['msg']}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        yield from read_jsonl(path)
    except OSError as exc:
        raise BadInput(f"cannot read {path}: {exc.strerror}; name the file to import") from exc


def _count_lines(path: Path) -> int:
    """About how many lines there are, for the progress."""
    try:
        with open(path, "rb") as file:
            return sum(chunk.count(b"\n") for chunk in iter(partial(file.read, 1 << 20), b""))
    except OSError as exc:
        raise BadInput(f"cannot read {path}: {exc.strerror}; name the file to import") from exc
