"""A trained model as a folder that plain transformers, and everything built on it, can load.

The type is the one that the base is stored in: PEFT adds an adapter in float32 and rounds once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, GenerationConfig

from bridgekd.lm.chat_template import make_self_contained
from bridgekd.lm.load import LocalModel, load_model, save_model
from bridgekd.lm.tokenization import find_stop_ids, tokenize_prompts
from bridgekd.records import Message

MODEL_INPUT_NAMES = ["input_ids", "attention_mask"]  # what `generate` of any family takes


@dataclass(frozen=True, slots=True)
class MergeResult:
    """What was written. `notes` are sentences about what a plain loader gets otherwise."""

    dtype: str
    n_parameters: int
    notes: tuple[str, ...]


def merge_adapter(
    model: str | Path,
    folder: Path,
    *,
    max_new_tokens: int,
    prompts: Sequence[tuple[Message, ...]],
) -> MergeResult:
    """Writes the model whole into `folder`: safetensors, tokenizer, a chat template and a
    generation_config.json that give greedily, and with nothing passed, what `lm.generate` gives.

    `prompts` are tried on the written tokenizer. Raises InputError as `load` does.
    """
    local = load_model(model, device="cpu", as_stored=True)
    network = merge_weights(local)
    tokenizer = local.tokenizer
    settings: Any = GenerationConfig
    network.generation_config = settings(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=list(find_stop_ids(tokenizer, network)),
        pad_token_id=tokenizer.pad_token_id,
    )
    expected = tokenize_prompts(tokenizer, prompts)
    tokenizer.chat_template = make_self_contained(tokenizer) or tokenizer.chat_template
    tokenizer.model_input_names = MODEL_INPUT_NAMES
    for own in ("is_local", "local_files_only"):  # how it was loaded here
        tokenizer.init_kwargs.pop(own, None)
    save_model(LocalModel(network, tokenizer, "cpu"), folder)
    return MergeResult(
        dtype=str(network.dtype).removeprefix("torch."),
        n_parameters=sum(p.numel() for p in network.parameters()),
        notes=() if _as_loaded(folder, prompts) == expected else (PROMPT_WARNING,),
    )


PROMPT_WARNING = (
    "AutoTokenizer and a plain apply_chat_template give other prompt tokens than the training had "
    "(the tokenizer's class or its chat template needs settings of its own), so expect worse "
    "answers than those measured."
)


def merge_weights(local: LocalModel) -> Any:
    """The transformers model itself, with its adapter merged in if it has one."""
    network: Any = local.model
    if hasattr(network, "merge_and_unload"):
        _untie_head(network)
        network = network.merge_and_unload()
    return network


def _untie_head(network: Any) -> None:
    """An adapter on an output layer that is tied to the embeddings must not change those, too."""
    head = network.get_base_model().get_output_embeddings()
    base = getattr(head, "base_layer", None)
    embeddings = network.get_input_embeddings().weight
    if base is not None and base.weight is embeddings:
        base.weight = torch.nn.Parameter(base.weight.detach().clone(), requires_grad=False)
        network.get_base_model().config.tie_word_embeddings = False


def _as_loaded(folder: Path, prompts: Sequence[tuple[Message, ...]]) -> list[list[int]]:
    """The prompts' tokens as a user of the folder gets them."""
    tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    asked = [[{"role": m.role, "content": m.content} for m in prompt] for prompt in prompts]
    settings = {"add_generation_prompt": True, "return_dict": True}
    return [
        list(tokenizer.apply_chat_template(messages, **settings)["input_ids"]) for messages in asked
    ]
