"""Recorded answers as a teacher: nothing is sent, everything else is as with a live one.

A recording is found by its question, or by its id where it names no question; several of one
question are its samples, in the file's order. What it is billed: its recorded tokens at the
recipe's price, or without a price its recorded cost. A question without a recording is a refused
row.
"""

import hashlib
import json
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bridgekd.config import Teacher
from bridgekd.core.calls import TeacherRequest
from bridgekd.core.costs import microusd_up
from bridgekd.core.replies import MOST_USD, Bill, Usage, bill_of, read_reply, read_usage
from bridgekd.edges.rows import read_jsonl
from bridgekd.errors import BadInput
from bridgekd.ledger.attempts import OpenAttempt
from bridgekd.teacher.lines import Outcome
from bridgekd.teacher.orders import Order

BYTES_PER_TOKEN = 4  # of English text, about; only where a recording has no token counts
NONE_RECORDED = '{"error": {"message": "nothing is recorded", "code": "no_recording"}}'
_Found = tuple[str, str]  # ("question" or "id", its value)


@dataclass(frozen=True, slots=True)
class Recording:
    """One recorded answer: the body of a chat completion, with its usage where that is known."""

    body: dict[str, Any]
    usage: Usage | None


def placed(teacher: Teacher, folder: Path) -> Teacher:
    """The teacher with its recordings found from `folder`, and named by what they hold.

    So another file, or a changed one, is another teacher: its answers are never mixed up with
    others in the ledger. Any other teacher comes back as it is.
    """
    if teacher.recordings is None:
        return teacher
    path = folder / Path(teacher.recordings).expanduser()
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as exc:
        raise BadInput(
            f"teacher.recordings: cannot read {path}: {exc.strerror}; give a JSONL file"
        ) from exc
    return teacher.model_copy(update={"provider": f"replay:{digest}", "recordings": str(path)})


class ReplayLine:
    """The recordings of a teacher, as a line."""

    outlives = False
    resting = False
    width = 1000

    def __init__(self, teacher: Teacher) -> None:
        self.adopted: dict[str, OpenAttempt] = {}
        self._teacher = teacher
        self._recordings = read_recordings(Path(str(teacher.recordings)))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def most(self, request: TeacherRequest, bound: Bill) -> Bill:
        """Exactly what the recording is billed."""
        recording = self._found(request)
        if recording is None:
            return Bill()
        reply = read_reply(json.dumps(_answer(recording, request)))
        reported = reply.usage.reported_usd if reply.usage else None
        return bill_of(reply, self._teacher.tariff, most=Bill(0, 0, microusd_up(reported or 0.0)))

    async def stop(self) -> set[str]:
        """None: there is no way that a call could be lost on."""
        return set()

    async def ask(self, order: Order) -> Outcome:
        """The recorded answer."""
        recording = self._found(order.request)
        if recording is None:
            return Outcome("refused", raw=NONE_RECORDED, reason="nothing is recorded for it")
        return Outcome("answered", raw=json.dumps(_answer(recording, order.request)))

    def _found(self, request: TeacherRequest) -> Recording | None:
        for name in (("question", request.question), ("id", request.id)):
            samples = self._recordings.get(name, [])
            if request.sample_index < len(samples):
                return samples[request.sample_index]
        return None


def read_recordings(path: Path) -> dict[_Found, list[Recording]]:
    """The recordings of a JSONL file, by question or id.

    A row has `question` or `id`; `text` (and `reasoning`, `finish_reason`) or a whole `response`;
    perhaps `usage` as in a chat completion, and `cost_usd`. BadInput with the line otherwise.
    """
    found: dict[_Found, list[Recording]] = {}
    for number, row in read_jsonl(path):
        name = "question" if row.get("question") is not None else "id"
        if row.get(name) is None:
            raise BadInput(f"{path} line {number}: neither 'question' nor 'id'; add one of them")
        try:
            recording = _recording(row)
        except ValueError as exc:
            raise BadInput(f"{path} line {number}: {exc}") from exc
        found.setdefault((name, str(row[name])), []).append(recording)
    return found


def _recording(row: dict[str, Any]) -> Recording:
    body = row.get("response")
    if body is None:
        if not isinstance(row.get("text"), str):
            raise ValueError("neither 'text' nor 'response'; add the recorded answer")
        message = {"role": "assistant", "content": row["text"]}
        message |= {"reasoning_content": row["reasoning"]} if row.get("reasoning") else {}
        finish = row.get("finish_reason") or "stop"
        body = {"choices": [{"index": 0, "message": message, "finish_reason": finish}]}
    if isinstance(body, str):
        body = json.loads(body)
    if read_reply(json.dumps(body)).state == "unparsable":
        raise ValueError("'response' is no chat completion; give its whole body, or 'text'")
    usage = row.get("usage") or body.get("usage") or {}
    if not isinstance(usage, dict):
        raise ValueError(
            f"'usage' is {usage!r}, no object with prompt_tokens and completion_tokens"
        )
    if usage.keys() - {"cost"} and read_usage(usage) is None:
        raise ValueError("'usage' has no whole numbers as prompt_tokens and completion_tokens")
    cost = row.get("cost_usd")
    if cost is not None and (isinstance(cost, bool) or not isinstance(cost, int | float)):
        raise ValueError(f"'cost_usd' is {cost!r}; it must be dollars, 0 or more")
    if cost is not None and not 0 <= cost <= MOST_USD:
        raise ValueError(f"'cost_usd' is {cost!r}; it must be dollars, 0 or more")
    usage = usage | ({} if cost is None else {"cost": cost})
    known = {k: v for k, v in body.items() if k != "usage"}
    return Recording(known | ({"usage": usage} if usage else {}), read_usage(usage))


def _answer(recording: Recording, request: TeacherRequest) -> dict[str, Any]:
    """The body, with token counts where there were none: counted from the texts' bytes."""
    if recording.usage is not None:
        return recording.body
    message = recording.body["choices"][0]["message"] if recording.body["choices"] else {}
    written = str(message.get("content") or "") + str(message.get("reasoning_content") or "")
    usage = {
        "prompt_tokens": sum(_n_tokens(m.content) for m in request.messages),
        "completion_tokens": _n_tokens(written),
        "estimated": True,
    }
    return recording.body | {"usage": recording.body.get("usage", {}) | usage}


def _n_tokens(text: str) -> int:
    return ceil(len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN)
