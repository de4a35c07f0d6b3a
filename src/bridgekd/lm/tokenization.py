"""Text to tokens: prompts with the chat template, targets span by span.

A training sequence is the tokens of the prompt, of each span, and the end token. So the role of
each token is known by construction. Training, generation and scoring all call `encode_prompts`, so
inference sees the prompt tokens of the training. Control tokens come from the chat template alone.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import jinja2
from transformers import PreTrainedTokenizerBase

from bridgekd.errors import InputError
from bridgekd.lm.control_tokens import (
    EncodedText,
    encode_texts,
    has_control_token,
    load_plain_text_encoder,
)
from bridgekd.messages import format_value
from bridgekd.records import Message, TrainingSequence

# For tokenizers without a template (BLOOM, base models): every message and a line break.
FALLBACK_TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
# A template is a program: it can divide by zero, loop without bound and call itself.
TEMPLATE_ERRORS = (
    jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError,
    ValueError,
)  # fmt: skip
PROBE_TEXT = "0"  # the text of an assistant turn that no template changes
ANCHOR_TEXT = "\n"  # the text before a span during tokenization
# Some templates write the date into a prompt (Llama 3.2, SmolLM3). They write this date, so that a
# prompt is the same on every day. It is the default of Llama.
TEMPLATE_DATE = datetime(2024, 7, 26)
_BYTE = re.compile("<0x[0-9A-F]{2}>")
_DATE = re.compile(r"""strftime_now\(\s*["'](.+?)["']\s*\)""")


@dataclass(frozen=True, slots=True)
class TokenizedSequence:
    """A training sequence: weights[i] is the loss weight of ids[i], 0 for the first `n_prompt`.

    is_rollout: whether the model that is trained wrote the target itself. advantage: of its reward
    over those of its group, in standard deviations; 0 without a reward. segments: the segment of
    each target token, ascending from 0; () if each is its own. reference_logprobs: for each target
    token, the log-probability of its segment for the reference model, or ().
    """

    ids: tuple[int, ...]
    weights: tuple[float, ...]
    n_prompt: int
    is_rollout: bool = False
    advantage: float = 0.0
    segments: tuple[int, ...] = ()
    reference_logprobs: tuple[float, ...] = ()


def tokenize_sequences(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[TrainingSequence]
) -> list[TokenizedSequence]:
    """Return token ids and loss weights of every row, in order.

    The end token has the weight of the last span. It is the token that ends a turn in the chat
    template, or end-of-text for a row without a prompt. The first token of a sequence has weight 0,
    because nothing predicts it. A row with a `loss_end` ends there.
    """
    prompts = tokenize_prompts(tokenizer, [row.prompt for row in rows])
    texts = [span.text for row in rows for span in row.spans]
    targets = iter(tokenize_continuations(tokenizer, texts))
    turn_end, text_end = find_turn_end_id(tokenizer), int(tokenizer.eos_token_id)
    sequences = []
    for row, prompt in zip(rows, prompts, strict=True):
        ids, weights = list(prompt), [0.0] * len(prompt)
        for span in row.spans:
            target = next(targets)
            ids += target
            weights += [span.weight] * len(target)
        ids.append(turn_end if row.prompt else text_end)
        weights.append(row.spans[-1].weight if row.spans else 0.0)
        if row.mean_weight is not None:
            scale = row.mean_weight / (len(ids) - len(prompt))
            weights = [scale * weight for weight in weights]
        weights[0] = 0.0
        sequences.append(TokenizedSequence(tuple(ids), tuple(weights), len(prompt)))
    return _limit_losses(tokenizer, rows, sequences)


def _limit_losses(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[TrainingSequence],
    sequences: Sequence[TokenizedSequence],
) -> list[TokenizedSequence]:
    """Return the sequences with a loss between `loss_start` and `loss_end` only, and without the
    tokens after it.

    A target is tokenized as a whole, so no token changes. If the text before a position has k
    tokens, the first k tokens of the target are before it. So rows with adjacent ranges share no
    token and miss none.
    """
    results = list(sequences)
    limited = [i for i, row in enumerate(rows) if row.loss_start or row.loss_end is not None]
    starts = _count_tokens_before(tokenizer, [(rows[i], rows[i].loss_start) for i in limited])
    ends = _count_tokens_before(tokenizer, [(rows[i], rows[i].loss_end or 0) for i in limited])
    for i, n_before, n_until in zip(limited, starts, ends, strict=True):
        row, n_tokens = sequences[i], len(sequences[i].ids)
        end = n_tokens if rows[i].loss_end is None else min(row.n_prompt + n_until, n_tokens - 1)
        start = min(row.n_prompt + n_before, end)
        weights = (0.0,) * start + row.weights[start:end]
        results[i] = replace(row, ids=row.ids[:end], weights=weights)
    return results


def _count_tokens_before(
    tokenizer: PreTrainedTokenizerBase, positions: Sequence[tuple[TrainingSequence, int]]
) -> list[int]:
    """Return the number of target tokens before a character of the target, for each row."""
    texts = []
    for row, position in positions:
        for span in row.spans:
            texts.append(span.text[: max(0, position)])
            position -= len(span.text)
    lengths = iter(map(len, tokenize_continuations(tokenizer, texts)))
    return [sum(next(lengths) for _ in row.spans) for row, _ in positions]


def truncate_prompt(
    row: TokenizedSequence, limit: int, bos_id: int | None
) -> TokenizedSequence | None:
    """Return the row in at most `limit` tokens, without the start of its prompt but with its BOS.

    None if the target leaves no space for a prompt.
    """
    start = 1 if row.n_prompt and row.ids[0] == bos_id else 0
    excess = len(row.ids) - limit
    if excess >= row.n_prompt - start:
        return None
    kept = slice(start + excess, None)
    return replace(
        row,
        ids=row.ids[:start] + row.ids[kept],
        weights=row.weights[:start] + row.weights[kept],
        n_prompt=row.n_prompt - excess,
    )


def tokenize_prompts(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[tuple[Message, ...]]
) -> list[list[int]]:
    """Return the tokens up to the start of the answer; an empty prompt gives BOS or nothing.

    A last message of the assistant is the beginning of the answer. It has the tokens that it has in
    a target, so a model continues it as its own text.
    """
    start = [int(tokenizer.bos_token_id)] if has_bos(tokenizer) else []
    pairs = [split_prefix(prompt) for prompt in prompts]
    encoded = iter(encode_prompts(tokenizer, [prompt for prompt, _ in pairs if prompt]))
    tokens = [next(encoded).ids if prompt else list(start) for prompt, _ in pairs]
    prefixes = iter(tokenize_continuations(tokenizer, [text for _, text in pairs if text]))
    return [
        ids + next(prefixes) if text else ids for ids, (_, text) in zip(tokens, pairs, strict=True)
    ]


def split_prefix(prompt: tuple[Message, ...]) -> tuple[tuple[Message, ...], str]:
    """Return a prompt up to the answer, and the text of a last message of the assistant, or ""."""
    if prompt and prompt[-1].role == "assistant":
        return prompt[:-1], prompt[-1].content
    return prompt, ""


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[Message]]
) -> list[EncodedText]:
    """Return every rendered prompt with its tokens. Text of a control token in a message is text.

    The text has other names for the control tokens of the template if a message has such text.
    """
    plain = find_plain_prompts(tokenizer, prompts)
    texts = [render_prompt(tokenizer, p) for p, ok in zip(prompts, plain, strict=True) if ok]
    encoded = iter(encode_texts(tokenizer, texts))
    if all(plain):
        return list(encoded)
    encoder = load_plain_text_encoder(tokenizer, find_control_ids(tokenizer))
    hidden = [encoder.hide(p) for p, ok in zip(prompts, plain, strict=True) if not ok]
    revealed = iter(encoder.encode([encoder.reveal(render_prompt(tokenizer, p)) for p in hidden]))
    return [next(encoded if ok else revealed) for ok in plain]


def find_plain_prompts(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[Message]]
) -> list[bool]:
    """Return for each prompt whether the tokenizer reads no control token in its messages."""
    control_ids = find_control_ids(tokenizer)
    encoded = encode_texts(tokenizer, [m.content for prompt in prompts for m in prompt])
    found = iter([has_control_token(tokenizer, control_ids, text) for text in encoded])
    return [sum(next(found) for _ in prompt) == 0 for prompt in prompts]


def render_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message]) -> str:
    """Return the prompt as text, up to the start of the answer.

    Thinking is off if the template supports this. A `<think>` block that the template opens anyway
    is closed, because a target is the visible answer with its own reasoning. If the template
    rejects or drops a system message, the message is put before the first user message. Raises
    InputError if the template still rejects the prompt.
    """
    messages = [{"role": message.role, "content": message.content} for message in prompt]
    has_system = len(prompt) > 1 and prompt[0].role == "system"
    try:
        text = _render(tokenizer, messages, add_generation_prompt=True)
        is_dropped = has_system and prompt[0].content.strip() not in text
    except TEMPLATE_ERRORS as exc:
        if not has_system:
            raise InputError(
                f"The chat template rejects the prompt: {exc}. Use another model or template."
            ) from exc
        is_dropped = True
    if is_dropped:
        system, first, *others = prompt
        merged = Message(first.role, f"{system.content}\n\n{first.content}")
        return render_prompt(tokenizer, [merged, *others])
    if not text:
        raise InputError("The chat template writes nothing. Use another model or template.")
    if text.rstrip().endswith("<think>"):
        text += "\n</think>\n\n" if not text.endswith("\n") else "</think>\n\n"
    return text


def tokenize_continuations(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> list[list[int]]:
    """Return the tokens of each text as a continuation, without BOS and without a leading space.

    SentencePiece-like tokenizers put a space before every text. So a text is tokenized after a line
    break, whose tokens are then removed. If they cannot be separated, or if the vocabulary has no
    token for the word without its space, the result is the tokens of the text alone. The result has
    no control token.
    """
    plain = _tokenize_as_text(tokenizer, texts)
    anchor = _tokenize(tokenizer, [ANCHOR_TEXT])[0]
    anchored = _tokenize_as_text(tokenizer, [ANCHOR_TEXT + text for text in texts])
    unknown = tokenizer.unk_token_id
    results = []
    for own, tokens in zip(plain, anchored, strict=True):
        rest = tokens[len(anchor) :]
        is_clean = tokens[: len(anchor)] == anchor and rest.count(unknown) <= own.count(unknown)
        results.append(rest if is_clean else own)
    return results


def find_turn_end_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token that ends an assistant turn.

    It is the first added token with a visible text that the template writes after the turn, or EOS
    without one. Gemma has added tokens for line breaks and runs of spaces, which end no turn.
    """
    eos = int(tokenizer.eos_token_id)
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": PROBE_TEXT}]
    try:
        text = _render(tokenizer, messages, add_generation_prompt=False)
    except TEMPLATE_ERRORS:
        return eos
    added = tokenizer.added_tokens_decoder
    (tokens,) = _tokenize(tokenizer, [text.rpartition(PROBE_TEXT)[2]])
    visible = (t for t in tokens if t in added and str(tokenizer.decode([t])).strip())
    return next(visible, eos)


def find_control_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the control tokens: those that the tokenizer calls special, and the end of a turn.

    Another added token, such as the `<think>` of some models, is part of a text, and so is a byte,
    which some tokenizers call special.
    """
    added = tokenizer.added_tokens_decoder
    special = {i for i, t in added.items() if t.special and not _BYTE.fullmatch(t.content)}
    end = find_turn_end_id(tokenizer)
    ends = {end} if end in added and added[end].content.strip() else set()
    return frozenset({*special, *ends, *tokenizer.all_special_ids})


def find_stop_ids(tokenizer: PreTrainedTokenizerBase, model: Any) -> tuple[int, ...]:
    """Return every token that ends a text, ascending: turn end, EOS and those of the model."""
    own = model.generation_config.eos_token_id
    own = [] if own is None else own if isinstance(own, list) else [own]
    if not all(isinstance(token, int) for token in own):
        raise InputError(
            f"eos_token_id in generation_config.json is {format_value(own)}. Set it to the id of a "
            "token, or remove it."
        )
    return tuple(sorted({find_turn_end_id(tokenizer), int(tokenizer.eos_token_id), *map(int, own)}))


def has_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether the tokenizer itself starts a text with BOS."""
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer(PROBE_TEXT)["input_ids"][:1] == [bos]


def freeze_date(template: str) -> str:
    """Return the template with TEMPLATE_DATE in place of the current date.

    >>> freeze_date("{{ strftime_now('%d %b %Y') }}")
    "{{ '26 Jul 2024' }}"
    """
    return _DATE.sub(lambda match: repr(TEMPLATE_DATE.strftime(match[1])), template)


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
            enable_thinking=False,  # for Qwen3; other templates ignore it
        )
    )


def _tokenize(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Return the tokens without BOS and EOS; a template writes its own."""
    return [encoded.ids for encoded in encode_texts(tokenizer, texts)]


def _tokenize_as_text(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Return the tokens of texts that no template wrote, so that none is a control token."""
    results, control_ids = encode_texts(tokenizer, texts), find_control_ids(tokenizer)
    rows = [i for i, row in enumerate(results) if has_control_token(tokenizer, control_ids, row)]
    if rows:
        encoder = load_plain_text_encoder(tokenizer, control_ids)
        encoded = encoder.encode([encoder.spell(texts[i]) for i in rows])
        for i, row in zip(rows, encoded, strict=True):
            results[i] = row
    return [row.ids for row in results]
