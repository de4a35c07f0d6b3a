"""A trained model as a folder that transformers, and everything built on it, can load.

The weights are float32, as training saves them. A merged adapter that is rounded to the bfloat16 of
its base gives other greedy texts (seen with Gemma 3 270M), and `from_pretrained` computes in the
stored type.
Training passes settings to the chat template (no thinking, a fixed date) and closes a `<think>`
block that it opens. A user of the folder passes none of that, so its template does it by itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from bridgekd.lm.adapters import merge_weights
from bridgekd.lm.load import LocalModel, load_model, save_model
from bridgekd.lm.tokenization import (
    TEMPLATE_ERRORS,
    find_plain_prompts,
    find_stop_ids,
    freeze_date,
    render_prompt,
    tokenize_prompts,
)
from bridgekd.records import Message

MODEL_INPUT_NAMES = ["input_ids", "attention_mask"]  # what `generate` of every family takes
PROMPT_WARNING = (
    "AutoTokenizer and a plain apply_chat_template give other prompt tokens than the training used "
    "(the tokenizer's class or its chat template needs its own settings). Expect worse answers "
    "than the measured ones."
)
_PROBE = (Message("user", "What is asked here?"),)
_NO_THINKING = "{%- set enable_thinking = false %}\n"
_SUFFIX = "{{% if add_generation_prompt %}}{{{{ {text!r} }}}}{{% endif %}}"
_CLOSING_TEXTS = ("\n</think>\n\n", "</think>\n\n")


@dataclass(frozen=True, slots=True)
class MergeResult:
    """The written model. `notes` are warnings about what a plain loader does differently."""

    dtype: str
    n_parameters: int
    notes: tuple[str, ...]


def merge_adapter(
    model: str | Path, folder: Path, *, max_new_tokens: int, prompts: Sequence[tuple[Message, ...]]
) -> MergeResult:
    """Write the model without an adapter into `folder`: weights, tokenizer and settings.

    Its chat template and generation_config.json give the greedy texts of `generate_texts` without
    any argument. `prompts` test the written tokenizer. Raises InputError as `load_model` does.
    """
    local = load_model(model, device="cpu")
    network: Any = merge_weights(local.model)
    tokenizer = local.tokenizer
    config_class: Any = GenerationConfig
    network.generation_config = config_class(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=list(find_stop_ids(tokenizer, network)),
        pad_token_id=tokenizer.pad_token_id,
    )
    # A plain loader reads the text of a control token as the token; the card says how to avoid it.
    plain = find_plain_prompts(tokenizer, prompts)
    prompts = [prompt for prompt, is_plain in zip(prompts, plain, strict=True) if is_plain]
    expected = tokenize_prompts(tokenizer, prompts)
    tokenizer.chat_template = make_self_contained(tokenizer) or tokenizer.chat_template
    tokenizer.model_input_names = MODEL_INPUT_NAMES
    for name in ("is_local", "local_files_only"):  # settings of this load only
        tokenizer.init_kwargs.pop(name, None)
    save_model(LocalModel(network, tokenizer, "cpu"), folder)
    return MergeResult(
        dtype=str(network.dtype).removeprefix("torch."),
        n_parameters=sum(p.numel() for p in network.parameters()),
        notes=() if _tokenize_plainly(folder, prompts) == expected else (PROMPT_WARNING,),
    )


def make_self_contained(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return the template with the smallest change that makes it render what training renders.

    A plain `apply_chat_template` then gives the text of `render_prompt`. None if no change helps.
    """
    expected = render_prompt(tokenizer, _PROBE)
    candidates = _iter_candidates(tokenizer.get_chat_template())
    return next((t for t in candidates if _render_with(tokenizer, t) == expected), None)


def _iter_candidates(template: str) -> Iterator[str]:
    """Yield templates from no change to all changes."""
    yield template
    yield freeze_date(template)
    changed = _NO_THINKING + freeze_date(template).removesuffix("\n")
    yield changed
    for text in _CLOSING_TEXTS:
        yield changed + _SUFFIX.format(text=text)


def _render_with(tokenizer: PreTrainedTokenizerBase, template: str) -> str | None:
    messages = [{"role": m.role, "content": m.content} for m in _PROBE]
    try:
        return str(
            tokenizer.apply_chat_template(
                messages, chat_template=template, tokenize=False, add_generation_prompt=True
            )
        )
    except TEMPLATE_ERRORS:
        return None


def _tokenize_plainly(folder: Path, prompts: Sequence[tuple[Message, ...]]) -> list[list[int]]:
    """Return the tokens of the prompts as a user of the folder gets them."""
    tokenizer: Any = AutoTokenizer.from_pretrained(
        str(folder), local_files_only=True, trust_remote_code=False
    )
    return [
        list(
            tokenizer.apply_chat_template(
                [{"role": m.role, "content": m.content} for m in prompt],
                add_generation_prompt=True,
                return_dict=True,
            )["input_ids"]
        )
        for prompt in prompts
    ]
