"""Small tokenizers with the template, special tokens and splitting of common model families.

The templates follow the published format of each family, without tools and images. `prompt` is the
expected rendering of QUESTION, written by hand.
"""

import json
from dataclasses import dataclass

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from tiny_models import TEXT

QUESTION = "Who holds the box ?\nThink step by step, then give the answer."


@dataclass(frozen=True)
class TemplateCase:
    """A model family. `kind` is bytes (byte-level BPE), gemma (SentencePiece) or llama2.

    llama2 is SentencePiece that puts a space before every text.
    """

    template: str | None
    prompt: str
    end: str  # the token that ends a turn
    specials: tuple[str, ...]
    eos: str
    pad: str | None
    kind: str = "bytes"
    bos: str | None = None
    has_bos: bool = False  # whether the tokenizer itself puts BOS before a text
    rstrip: bool = False  # whether special tokens remove white space after them


_QWEN_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
_SMOL_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


def chatml_with_default(system: str) -> str:
    """Return ChatML with a default system turn if the first message is not a system message."""
    return (
        "{%- for m in messages %}"
        "{%- if loop.first and m.role != 'system' %}"
        f"{{{{- '<|im_start|>system\\n{system}<|im_end|>\\n' }}}}"
        "{%- endif %}"
        "{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
        "{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
    )


# Removes thinking blocks of earlier turns. Writes the block of the last turn even if it is empty.
# If thinking is off, the prompt has an empty block.
_QWEN3 = """\
{%- set last = namespace(query=messages|length - 1) %}
{%- for m in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if m.role == 'user' and not last.found %}
        {%- set last.query = index %}
        {%- set last.found = true %}
    {%- endif %}
{%- endfor %}
{%- for m in messages %}
    {%- if m.role == 'assistant' %}
        {%- set content = m.content %}
        {%- set thought = '' %}
        {%- if '</think>' in content %}
            {%- set thought = content.split('</think>')[0].split('<think>')[-1].strip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if loop.index0 > last.query and (loop.last or thought) %}
            {{- '<think>\\n' + thought + '\\n</think>\\n\\n' }}
        {%- endif %}
        {{- content + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""

_LLAMA3 = """\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for m in messages %}
    {{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' }}
    {{- m['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

_GEMMA = """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}\
{{ raise_exception('System role not supported') }}{% endif %}\
{% for m in messages %}\
{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}\
{% endif %}\
{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}\
{{ '<start_of_turn>' + role + '\\n' + m['content'] | trim + '<end_of_turn>\\n' }}\
{% endfor %}\
{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""

# The first Phi-3 silently drops a system message; 3.5 keeps it.
_PHI3 = """\
{{ bos_token }}{% for m in messages %}\
{% if m['role'] == 'user' %}{{ '<|user|>\\n' + m['content'] + '<|end|>\\n<|assistant|>\\n' }}\
{% elif m['role'] == 'assistant' %}{{ m['content'] + '<|end|>\\n' }}{% endif %}\
{% endfor %}"""
_PHI35 = """\
{% for m in messages %}\
{% if m['role'] == 'system' and m['content'] %}{{ '<|system|>\\n' + m['content'] + '<|end|>\\n' }}\
{% elif m['role'] == 'user' %}{{ '<|user|>\\n' + m['content'] + '<|end|>\\n' }}\
{% elif m['role'] == 'assistant' %}{{ '<|assistant|>\\n' + m['content'] + '<|end|>\\n' }}\
{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"""

# A system message goes before the last user message; an answer has a space before it.
_MISTRAL = """\
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- bos_token }}
{%- for m in loop_messages %}
    {%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('After an optional system message roles must alternate') }}
    {%- endif %}
    {%- if m['role'] == 'user' %}
        {%- if loop.last and system_message is defined %}
            {{- '[INST] ' + system_message + '\\n\\n' + m['content'] + '[/INST]' }}
        {%- else %}
            {{- '[INST] ' + m['content'] + '[/INST]' }}
        {%- endif %}
    {%- else %}
        {{- ' ' + m['content']|trim + eos_token }}
    {%- endif %}
{%- endfor %}
"""

# Always opens a thinking block, and removes thinking blocks of earlier turns.
_R1 = """\
{{ bos_token }}{% for m in messages %}\
{% if m['role'] == 'system' %}{{ m['content'] }}\
{% elif m['role'] == 'user' %}{{ '<｜User｜>' + m['content'] }}\
{% else %}{{ '<｜Assistant｜>' + m['content'].split('</think>')[-1] + '<｜end▁of▁sentence｜>' }}\
{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}"""

_CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
FAMILIES = {
    "qwen2.5": TemplateCase(
        template=chatml_with_default(_QWEN_SYSTEM),
        prompt=f"<|im_start|>system\n{_QWEN_SYSTEM}<|im_end|>\n<|im_start|>user\n{QUESTION}<|im_end|>\n"
        "<|im_start|>assistant\n",
        end="<|im_end|>",
        specials=_CHATML,
        eos="<|im_end|>",
        pad="<|endoftext|>",
    ),
    "qwen2.5 base": TemplateCase(  # end-of-text and padding are the same token
        template=chatml_with_default("You are a helpful assistant."),
        prompt="<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n",
        end="<|im_end|>",
        specials=_CHATML,
        eos="<|endoftext|>",
        pad="<|endoftext|>",
    ),
    "qwen3": TemplateCase(
        template=_QWEN3,
        prompt=f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
        "<think>\n\n</think>\n\n",
        end="<|im_end|>",
        specials=(*_CHATML, "<think>", "</think>"),
        eos="<|im_end|>",
        pad="<|endoftext|>",
    ),
    "llama3": TemplateCase(
        template=_LLAMA3,
        prompt="<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
        "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n<|eot_id|>"
        f"<|start_header_id|>user<|end_header_id|>\n\n{QUESTION}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        end="<|eot_id|>",
        specials=(
            "<|begin_of_text|>",
            "<|end_of_text|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|eot_id|>",
        ),
        bos="<|begin_of_text|>",
        eos="<|eot_id|>",
        pad=None,
        has_bos=True,
    ),
    "gemma": TemplateCase(
        template=_GEMMA,
        prompt=f"<bos><start_of_turn>user\n{QUESTION}<end_of_turn>\n<start_of_turn>model\n",
        end="<end_of_turn>",
        specials=("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"),
        bos="<bos>",
        eos="<eos>",
        pad="<pad>",
        kind="gemma",
        has_bos=True,
    ),
    "phi3": TemplateCase(
        template=_PHI3,
        prompt=f"<s><|user|>\n{QUESTION}<|end|>\n<|assistant|>\n",
        end="<|end|>",
        specials=("<unk>", "<s>", "</s>", "<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>"),
        bos="<s>",
        eos="<|endoftext|>",
        pad="<|endoftext|>",
        kind="llama2",
        has_bos=True,
        rstrip=True,
    ),
    "phi3.5": TemplateCase(
        template=_PHI35,
        prompt=f"<|user|>\n{QUESTION}<|end|>\n<|assistant|>\n",
        end="<|end|>",
        specials=(
            "<unk>",
            "<s>",
            "</s>",
            "<|endoftext|>",
            "<|system|>",
            "<|user|>",
            "<|assistant|>",
            "<|end|>",
        ),
        bos="<s>",
        eos="<|endoftext|>",
        pad="<|endoftext|>",
        kind="llama2",
        rstrip=True,
    ),
    "mistral": TemplateCase(
        template=_MISTRAL,
        prompt=f"<s>[INST] {QUESTION}[/INST]",
        end="</s>",
        specials=("<unk>", "<s>", "</s>", "[INST]", "[/INST]"),
        bos="<s>",
        eos="</s>",
        pad=None,
        kind="llama2",
        has_bos=True,
    ),
    "smollm2": TemplateCase(
        template=chatml_with_default(_SMOL_SYSTEM),
        prompt=f"<|im_start|>system\n{_SMOL_SYSTEM}<|im_end|>\n<|im_start|>user\n{QUESTION}<|im_end|>\n"
        "<|im_start|>assistant\n",
        end="<|im_end|>",
        specials=_CHATML,
        bos="<|im_start|>",
        eos="<|im_end|>",
        pad="<|im_end|>",
    ),
    "r1": TemplateCase(
        template=_R1,
        prompt=f"<｜begin▁of▁sentence｜><｜User｜>{QUESTION}<｜Assistant｜><think>\n</think>\n\n",
        end="<｜end▁of▁sentence｜>",
        specials=(
            "<｜begin▁of▁sentence｜>",
            "<｜end▁of▁sentence｜>",
            "<｜User｜>",
            "<｜Assistant｜>",
            "<think>",
            "</think>",
        ),
        bos="<｜begin▁of▁sentence｜>",
        eos="<｜end▁of▁sentence｜>",
        pad="<｜end▁of▁sentence｜>",
        has_bos=True,
    ),
    "bloom": TemplateCase(
        template=None,
        prompt=f"{QUESTION}\n",
        end="</s>",
        specials=("<unk>", "<s>", "</s>", "<pad>"),
        bos="<s>",
        eos="</s>",
        pad="<pad>",
    ),
}
_TEXTS = [
    *TEXT.split("\n"),
    *QUESTION.split("\n"),
    "Today Date: 26 Jul 2024",
    "You are a helpful assistant.",
]


def make_tokenizer(family: TemplateCase) -> PreTrainedTokenizerFast:
    """Return a small tokenizer of the family, trained on a few sentences."""
    raw, alphabet = _blank(family.kind)
    trainer = trainers.BpeTrainer(
        vocab_size=520,
        show_progress=False,
        initial_alphabet=alphabet,
        special_tokens=[*family.specials, *([] if family.kind == "bytes" else _BYTES)],
    )
    raw.train_from_iterator(_TEXTS, trainer)
    raw = _as_published(raw)
    raw.add_special_tokens(
        [
            AddedToken(text, special="think" not in text, normalized=False, rstrip=family.rstrip)
            for text in family.specials
        ]
    )
    if family.has_bos:
        bos_id = raw.token_to_id(family.bos)
        raw.post_processor = TemplateProcessing(
            single=f"{family.bos} $A", special_tokens=[(family.bos, bos_id)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token=family.bos,
        eos_token=family.eos,
        pad_token=family.pad,
        unk_token="<unk>" if "<unk>" in family.specials else None,
        chat_template=family.template,
    )


_BYTES = [f"<0x{i:02X}>" for i in range(256)]


def _as_published(raw: Tokenizer) -> Tokenizer:
    """Return the tokenizer without the parts that only its training needs.

    In SentencePiece, bytes are ordinary tokens, and words are not split before merging.
    """
    config = json.loads(raw.to_str())
    config["added_tokens"] = []
    if config["model"]["byte_fallback"]:
        config["pre_tokenizer"] = None
    return Tokenizer.from_str(json.dumps(config))


def _blank(kind: str) -> tuple[Tokenizer, list[str]]:
    """Return an untrained tokenizer and its initial alphabet."""
    if kind == "bytes":
        raw = Tokenizer(models.BPE())
        raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        raw.decoder = decoders.ByteLevel()
        return raw, pre_tokenizers.ByteLevel.alphabet()
    raw = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    raw.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    replaced = normalizers.Replace(" ", "▁")
    back = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if kind == "gemma":
        raw.normalizer = replaced
        raw.decoder = decoders.Sequence(back)
        return raw, ["\n"]
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replaced])
    raw.decoder = decoders.Sequence([*back, decoders.Strip(" ", 1, 0)])
    return raw, []  # a line break is a byte
