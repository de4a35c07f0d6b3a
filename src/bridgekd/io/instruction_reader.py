"""Read an instruction data set: what the student is instruction-tuned on.

Rows are those of Alpaca and Dolly (instruction, input or context, output or response), of prompt
and completion, of OpenAI chats (messages) or of ShareGPT (conversations). A chat teaches its last
assistant message, after all messages before it. A row that cannot be used is skipped and counted.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bridgekd.errors import InputError
from bridgekd.io.raw_rows import iter_raw_rows
from bridgekd.messages import format_text
from bridgekd.records import Message

_SHAREGPT_ROLES = {"human": "user", "gpt": "assistant", "system": "system", "user": "user"}
_RESPONSES = ("output", "response", "completion")
_CONTEXTS = ("input", "context")


@dataclass(frozen=True, slots=True)
class Instruction:
    """What the model sees, and the text that it learns to write."""

    prompt: tuple[Message, ...]
    response: str

    @property
    def prompt_text(self) -> str:
        """The messages as one text."""
        return "\n".join(message.content for message in self.prompt)


@dataclass(frozen=True, slots=True)
class InstructionSet:
    """The usable rows in their order, and the reasons for which the others were skipped."""

    rows: tuple[Instruction, ...]
    skipped: Mapping[str, int]

    def describe_skipped(self) -> str:
        """Return "3 rows were skipped: no assistant message (2), ..."; "" if none was."""
        if not self.skipped:
            return ""
        reasons = ", ".join(f"{reason} ({n:,})" for reason, n in self.skipped.items())
        return f"{sum(self.skipped.values()):,} rows were skipped: {reasons}"


def read_instructions(path: Path) -> InstructionSet:
    """Return the instructions of a file or Hub data set.

    Raises InputError if a row has none of the known columns, or if no row can be used.
    """
    rows, skipped = [], Counter[str]()
    for where, row in iter_raw_rows(path):
        found = _parse_row(where, row)
        if isinstance(found, Instruction):
            rows.append(found)
        else:
            skipped[found] += 1
    instructions = InstructionSet(tuple(rows), dict(skipped.most_common()))
    if not rows:
        raise InputError(
            f"{path} has no usable instruction. {instructions.describe_skipped() or 'It is empty'}."
        )
    return instructions


def _parse_row(where: str, row: Mapping[str, object]) -> Instruction | str:
    """Return the instruction, or the reason to skip the row."""
    chat = row.get("messages") or row.get("conversations")
    if isinstance(chat, list):
        return _parse_chat(chat)
    prompt = row.get("instruction") or row.get("prompt")
    response = next((row[name] for name in _RESPONSES if row.get(name) is not None), None)
    if isinstance(prompt, list):
        return _parse_chat([*prompt, *(response if isinstance(response, list) else [])])
    if not isinstance(prompt, str) or not isinstance(response, str):
        raise InputError(
            f"{where}: No instruction found. Expected the columns instruction and output (input is "
            "optional), prompt and completion (or response), messages, or conversations. The row "
            f"has {format_text(', '.join(map(str, row)))}."
        )
    if not response.strip():
        return "empty response"
    context = next((row[name] for name in _CONTEXTS if row.get(name)), None)
    text = f"{prompt}\n{context}" if isinstance(context, str) else prompt
    system = row.get("system")
    messages = [Message("system", system)] if isinstance(system, str) and system.strip() else []
    return Instruction((*messages, Message("user", text)), response)


def _parse_chat(chat: list[object]) -> Instruction | str:
    """Return the last assistant message that is to be learned, with all messages before it."""
    messages: list[Message] = []
    last: Instruction | None = None
    is_ignored = False
    for item in chat:
        if not isinstance(item, Mapping):
            return "a message that is not an object"
        role = str(item.get("role") or _SHAREGPT_ROLES.get(str(item.get("from")), item.get("from")))
        text = _get_text(item.get("content") if "content" in item else item.get("value"))
        if role not in ("system", "user", "assistant") or item.get("tool_calls"):
            return "a tool call"
        if text is None:
            return "a message without text"
        message = Message(role, text)
        if role == "assistant" and messages and text.strip():
            if item.get("weight") == 0:
                is_ignored = True
            else:
                last = Instruction(tuple(messages), text)
        messages.append(message)
    if last is None:
        return "weight 0" if is_ignored else "no assistant message"
    return last


def _get_text(content: object) -> str | None:
    """Return a message's text: a string, or the text parts of a list."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, Mapping)]
        if len(parts) == len(content) and all(isinstance(part, str) for part in parts):
            return "".join(map(str, parts))
    return None
