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

from bridgekd.errors import InputError
from bridgekd.records import Message, TrainingSequence

# For tokenizers without a template (BLOOM, plain base models): every message and a line break.
FALLBACK_TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
PROBE_TEXT = "0"  # an assistant turn whose text no template changes
ANCHOR_TEXT = "\n"  # ordinary text that precedes a span while it is tokenised
# Templates that write today's date into a prompt (Llama 3.2, SmolLM3) write this one, so that a
# prompt is the same on the day of the training and ever after. It is Llama's own default.
TEMPLATE_DATE = datetime(2024, 7, 26)
_DATE = re.compile(r"""strftime_now\(\s*["'](.+?)["']\s*\)""")


@dataclass(frozen=True, slots=True)
class TokenizedSequence:
    """One training sequence; `weights[i]` is the loss weight of predicting `ids[i]`, 0 for the
    first `n_prompt`.
    """

    ids: tuple[int, ...]
    weights: tuple[float, ...]
    n_prompt: int


def tokenize_sequences(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[TrainingSequence]
) -> list[TokenizedSequence]:
    """Token ids and per-token loss weights of every row, in order.

    The end token is learned with the last span's weight: the token that ends a turn in the chat
    template, or end-of-text for a row of plain text. The first token of a sequence has nothing
    before it and so no weight.
    """
    prompts = tokenize_prompts(tokenizer, [row.prompt for row in rows])
    targets = iter(
        tokenize_continuations(tokenizer, [span.text for row in rows for span in row.spans])
    )
    ends = {True: find_turn_end_id(tokenizer), False: int(tokenizer.eos_token_id)}
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
        encoded.append(TokenizedSequence(tuple(ids), tuple(weights), len(prompt)))
    return encoded


def truncate_prompt(
    row: TokenizedSequence, limit: int, bos_id: int | None
) -> TokenizedSequence | None:
    """The row in at most `limit` tokens, without the start of its prompt but with its BOS; None
    where the target leaves no room for a prompt.
    """
    start = 1 if row.n_prompt and row.ids[0] == bos_id else 0
    excess = len(row.ids) - limit
    if excess >= row.n_prompt - start:
        return None
    kept = slice(start + excess, None)
    return TokenizedSequence(
        row.ids[:start] + row.ids[kept],
        row.weights[:start] + row.weights[kept],
        row.n_prompt - excess,
    )


def tokenize_prompts(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[tuple[Message, ...]]
) -> list[list[int]]:
    """The tokens up to where the model's answer starts; an empty prompt gives BOS or nothing."""
    texts = [render_prompt(tokenizer, prompt) if prompt else "" for prompt in prompts]
    start = [int(tokenizer.bos_token_id)] if has_bos(tokenizer) else []
    ids = _tokenize(tokenizer, texts)
    return [tokens if prompt else list(start) for prompt, tokens in zip(prompts, ids, strict=True)]


def render_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message]) -> str:
    """The prompt as text, ending where the model's answer starts.

    Where the template can switch thinking off it does; a `<think>` block that it opens all the same
    is closed again, because a target is the visible answer and holds its own reasoning. A system
    message that the template refuses, or leaves out without a word, is put before the first user
    message. Raises InputError for a prompt that the template refuses all the same.
    """
    messages = [{"role": message.role, "content": message.content} for message in prompt]
    has_system = len(prompt) > 1 and prompt[0].role == "system"
    try:
        text = _render(tokenizer, messages, add_generation_prompt=True)
        is_lost = has_system and prompt[0].content.strip() not in text
    except jinja2.TemplateError as exc:
        if not has_system:
            raise InputError(f"the chat template refuses the prompt: {exc}") from exc
        is_lost = True
    if is_lost:
        return render_prompt(tokenizer, _merge_system_message(prompt))
    if text.rstrip().endswith("<think>"):
        text += "\n</think>\n\n" if not text.endswith("\n") else "</think>\n\n"
    return text


def tokenize_continuations(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> list[list[int]]:
    """The tokens of each text as a continuation: no BOS, and no space put before it.

    SentencePiece-like tokenizers put a space before any text they are given. So a text is tokenised
    behind a line break, whose tokens are then cut off; where the cut is not clean, or the
    vocabulary does not know the word without its space, the text's own tokens stand.
    """
    plain = _tokenize(tokenizer, texts)
    anchor = _tokenize(tokenizer, [ANCHOR_TEXT])[0]
    anchored = _tokenize(tokenizer, [ANCHOR_TEXT + text for text in texts])
    unknown = tokenizer.unk_token_id
    chosen = []
    for own, behind in zip(plain, anchored, strict=True):
        cut = behind[len(anchor) :]
        clean = behind[: len(anchor)] == anchor and cut.count(unknown) <= own.count(unknown)
        chosen.append(cut if clean else own)
    return chosen


def find_turn_end_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends an assistant turn: the first special one the template puts, or EOS."""
    eos = int(tokenizer.eos_token_id)
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": PROBE_TEXT}]
    try:
        text = _render(tokenizer, messages, add_generation_prompt=False)
    except jinja2.TemplateError:
        return eos
    special = tokenizer.added_tokens_decoder
    behind = _tokenize(tokenizer, [text.rpartition(PROBE_TEXT)[2]])[0]
    return next((token for token in behind if token in special), eos)


def find_stop_ids(tokenizer: PreTrainedTokenizerBase, model: Any) -> tuple[int, ...]:
    """Every token after which a text is over, ascending: turn end, EOS and the model's own."""
    own = model.generation_config.eos_token_id
    own = [] if own is None else own if isinstance(own, list) else [own]
    return tuple(sorted({find_turn_end_id(tokenizer), int(tokenizer.eos_token_id), *map(int, own)}))


def has_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer by itself starts a text with BOS."""
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer(PROBE_TEXT)["input_ids"][:1] == [bos]


def freeze_date(template: str) -> str:
    """The template with TODAY wherever it asks for the date."""
    return _DATE.sub(lambda asked: repr(TEMPLATE_DATE.strftime(asked[1])), template)


def _merge_system_message(prompt: Sequence[Message]) -> list[Message]:
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
            chat_template=freeze_date(tokenizer.get_chat_template()),
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            enable_thinking=False,  # Qwen3's switch; templates that do not know it ignore it
        )
    )


def _tokenize(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
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
