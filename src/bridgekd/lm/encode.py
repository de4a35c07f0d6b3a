"""Text to tokens: prompts through the chat template, targets span by span.

The one idea: a sequence is prompt tokens + each span's tokens + the end token, concatenated, so
which token belongs to what is known by construction and never searched for. Training, generation
and scoring all render through `render_prompt`, so inference sees the prompt tokens of training.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import jinja2
from transformers import PreTrainedTokenizerBase

from bridgekd.errors import BadInput
from bridgekd.records import Message, TrainRow

# For tokenizers without a template (BLOOM, plain base models): every message and a line break.
FALLBACK_TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
PROBE = "0"  # an assistant turn whose text no template changes
ANCHOR = "\n"  # ordinary text that precedes a span while it is tokenised
# Templates that write today's date into a prompt (Llama 3.2, SmolLM3) write this one, so that a
# prompt is the same on the day of the training and ever after. It is Llama's own default.
TODAY = datetime(2024, 7, 26)
_DATE = re.compile(r"""strftime_now\(\s*["'](.+?)["']\s*\)""")


@dataclass(frozen=True, slots=True)
class Encoded:
    """One training sequence; `weights[i]` is the loss weight of predicting `ids[i]`, 0 for the
    first `n_prompt`.
    """

    ids: tuple[int, ...]
    weights: tuple[float, ...]
    n_prompt: int


def encode_rows(tokenizer: PreTrainedTokenizerBase, rows: Sequence[TrainRow]) -> list[Encoded]:
    """Token ids and per-token loss weights of every row, in order.

    The end token is learned with the last span's weight: the token that ends a turn in the chat
    template, or end-of-text for a row of plain text. The first token of a sequence has nothing
    before it and so no weight.
    """
    prompts = prompt_ids(tokenizer, [row.prompt for row in rows])
    targets = iter(text_ids(tokenizer, [span.text for row in rows for span in row.spans]))
    ends = {True: turn_end_id(tokenizer), False: int(tokenizer.eos_token_id)}
    encoded = []
    for row, prompt in zip(rows, prompts, strict=True):
        ids, weights = list(prompt), [0.0] * len(prompt)
        for span in row.spans:
            target = next(targets)
            ids += target
            weights += [span.weight] * len(target)
        ids.append(ends[bool(row.prompt)])
        weights.append(row.spans[-1].weight if row.spans else 0.0)
        weights[0] = 0.0
        encoded.append(Encoded(tuple(ids), tuple(weights), len(prompt)))
    return encoded


def shortened(row: Encoded, limit: int, bos_id: int | None) -> Encoded | None:
    """The row in at most `limit` tokens, without the start of its prompt but with its BOS; None
    where the target leaves no room for a prompt.
    """
    start = 1 if row.n_prompt and row.ids[0] == bos_id else 0
    excess = len(row.ids) - limit
    if excess >= row.n_prompt - start:
        return None
    kept = slice(start + excess, None)
    return Encoded(
        row.ids[:start] + row.ids[kept],
        row.weights[:start] + row.weights[kept],
        row.n_prompt - excess,
    )


def prompt_ids(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[tuple[Message, ...]]
) -> list[list[int]]:
    """The tokens up to where the model's answer starts; an empty prompt gives BOS or nothing."""
    texts = [render_prompt(tokenizer, prompt) if prompt else "" for prompt in prompts]
    start = [int(tokenizer.bos_token_id)] if adds_bos(tokenizer) else []
    ids = _tokenise(tokenizer, texts)
    return [tokens if prompt else list(start) for prompt, tokens in zip(prompts, ids, strict=True)]


def render_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message]) -> str:
    """The prompt as text, ending where the model's answer starts.

    Where the template can switch thinking off it does; a `<think>` block that it opens all the same
    is closed again, because a target is the visible answer and holds its own reasoning. A system
    message that the template refuses, or leaves out without a word, is put before the first user
    message. Raises BadInput for a prompt that the template refuses all the same.
    """
    messages = [{"role": message.role, "content": message.content} for message in prompt]
    has_system = len(prompt) > 1 and prompt[0].role == "system"
    try:
        text = _render(tokenizer, messages, add_generation_prompt=True)
        is_lost = has_system and prompt[0].content.strip() not in text
    except jinja2.TemplateError as exc:
        if not has_system:
            raise BadInput(f"the chat template refuses the prompt: {exc}") from exc
        is_lost = True
    if is_lost:
        return render_prompt(tokenizer, _merged(prompt))
    if text.rstrip().endswith("<think>"):
        text += "\n</think>\n\n" if not text.endswith("\n") else "</think>\n\n"
    return text


def text_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of each text as a continuation: no BOS, and no space put before it.

    SentencePiece-like tokenizers put a space before any text they are given. So a text is tokenised
    behind a line break, whose tokens are then cut off; where the cut is not clean, or the
    vocabulary does not know the word without its space, the text's own tokens stand.
    """
    plain = _tokenise(tokenizer, texts)
    anchor = _tokenise(tokenizer, [ANCHOR])[0]
    anchored = _tokenise(tokenizer, [ANCHOR + text for text in texts])
    unknown = tokenizer.unk_token_id
    chosen = []
    for own, behind in zip(plain, anchored, strict=True):
        cut = behind[len(anchor) :]
        clean = behind[: len(anchor)] == anchor and cut.count(unknown) <= own.count(unknown)
        chosen.append(cut if clean else own)
    return chosen


def turn_end_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends an assistant turn: the first special one the template puts, or EOS."""
    eos = int(tokenizer.eos_token_id)
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": PROBE}]
    try:
        text = _render(tokenizer, messages, add_generation_prompt=False)
    except jinja2.TemplateError:
        return eos
    special = tokenizer.added_tokens_decoder
    behind = _tokenise(tokenizer, [text.rpartition(PROBE)[2]])[0]
    return next((token for token in behind if token in special), eos)


def stop_ids(tokenizer: PreTrainedTokenizerBase, model: Any) -> tuple[int, ...]:
    """Every token after which a text is over, ascending: turn end, EOS and the model's own."""
    own = model.generation_config.eos_token_id
    own = [] if own is None else own if isinstance(own, list) else [own]
    return tuple(sorted({turn_end_id(tokenizer), int(tokenizer.eos_token_id), *map(int, own)}))


def adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer by itself starts a text with BOS."""
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer(PROBE)["input_ids"][:1] == [bos]


def dated(template: str) -> str:
    """The template with TODAY wherever it asks for the date."""
    return _DATE.sub(lambda asked: repr(TODAY.strftime(asked[1])), template)


def _merged(prompt: Sequence[Message]) -> list[Message]:
    """The system message at the head of the one behind it."""
    system, first, *others = prompt
    return [Message(first.role, f"{system.content}\n\n{first.content}"), *others]


def _render(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[dict[str, str]],
    *,
    add_generation_prompt: bool,
) -> str:
    return str(
        tokenizer.apply_chat_template(
            messages,
            chat_template=dated(tokenizer.get_chat_template()),
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            enable_thinking=False,  # Qwen3's switch; templates that do not know it ignore it
        )
    )


def _tokenise(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Tokens without BOS or EOS; a template writes its own."""
    if not texts:
        return []
    encoding = tokenizer(
        list(texts),
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    ids: list[list[int]] = encoding["input_ids"]
    return ids
