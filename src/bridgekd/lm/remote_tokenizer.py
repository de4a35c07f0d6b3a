"""What is known here of a model that answers elsewhere: its tokens, and the folder it is served
from.

The one idea: whatever a server is asked is tokenised here, by the functions that training and
scoring in process use, so that it sees the tokens of training and which of them are the answer's is
known by construction.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from transformers import GenerationConfig, PreTrainedTokenizerBase

from bridgekd.lm.choice_logprobs import ChoiceSet, tokenize_choices
from bridgekd.lm.confidence import build_judge_rows, build_text_rows, find_judge_tokens
from bridgekd.lm.forward import ScoringRow
from bridgekd.lm.load import (
    LocalModel,
    find_adapter_base,
    load_model,
    load_tokenizer,
    save_model,
)
from bridgekd.lm.merge import merge_weights
from bridgekd.lm.score_inputs import build_gold_rows
from bridgekd.lm.tokenization import find_stop_ids, has_bos, render_prompt, tokenize_prompts
from bridgekd.records import Example, Message

__all__ = [
    "ChoiceSet",
    "RemoteTokenizer",
    "ScoringRow",
    "load_remote_tokenizer",
    "prepare_model_folder",
]


@dataclass(frozen=True, slots=True)
class RemoteTokenizer:
    """A model's tokenizer without its weights, and the tokens after which its texts are over."""

    tokenizer: PreTrainedTokenizerBase
    stop: tuple[int, ...]

    def tokenize_prompts(self, prompts: Sequence[tuple[Message, ...]]) -> list[list[int]]:
        """The tokens of every prompt, up to where the answer starts."""
        return tokenize_prompts(self.tokenizer, prompts)

    def render_prompts(self, prompts: Sequence[tuple[Message, ...]]) -> list[str]:
        """Every prompt as a text that the model's own tokenizer, which may put a BOS of its own
        before it, reads as the tokens of `prompts`.
        """
        bos = str(self.tokenizer.bos_token) if has_bos(self.tokenizer) else ""
        return [render_prompt(self.tokenizer, prompt).removeprefix(bos) for prompt in prompts]

    def tokenize_text(self, text: str) -> list[int]:
        """The tokens of a text as a server reads it."""
        return list(self.tokenizer(text)["input_ids"])

    def build_gold_rows(self, examples: Sequence[Example]) -> list[ScoringRow]:
        """Every example's answer prompt and gold answer; InputError where there is none."""
        return build_gold_rows(self, examples)

    def build_choice_rows(self, examples: Sequence[Example]) -> list[ChoiceSet]:
        """Every example's answer prompt and options."""
        return tokenize_choices(self, examples)

    def build_judge_rows(
        self, pairs: Sequence[tuple[Example, str]]
    ) -> tuple[list[ScoringRow], list[ScoringRow]]:
        """Every pair's judge prompt, with what stands for true and with what stands for false."""
        true, false = find_judge_tokens(self)
        return build_judge_rows(self, pairs, true), build_judge_rows(self, pairs, false)

    def build_text_rows(self, pairs: Sequence[tuple[Example, str]]) -> list[ScoringRow]:
        """Every pair's explain prompt and its text."""
        return build_text_rows(self, pairs)


@dataclass(frozen=True, slots=True)
class _ConfigOnlyModel:
    """What `stop_ids` asks of a model."""

    generation_config: GenerationConfig


def load_remote_tokenizer(model: str | Path, revision: str | None = None) -> RemoteTokenizer:
    """The tokens of a Hub id or folder; the model's weights are not touched."""
    base, base_revision = find_adapter_base(model) or (model, revision)
    tokenizer = load_tokenizer(model, revision)
    stop = find_stop_ids(tokenizer, _ConfigOnlyModel(_generation_config(base, base_revision)))
    return RemoteTokenizer(tokenizer, stop)


def prepare_model_folder(
    model: str | Path, revision: str | None, room: Path, name: str
) -> Path | None:
    """The folder that a server is to load for a model: its own, or, for an adapter, `room/name`
    with base and adapter merged into plain safetensors of the base's precision, written unless it
    is there. None for a Hub id at its newest revision, which a server fetches by itself.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir() and revision is None:
        return None
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(str(model), revision=revision))
    if find_adapter_base(folder) is None:
        return folder.resolve()
    merged, writing = room / name, room / f"{name}.writing"
    if not merged.is_dir():
        shutil.rmtree(writing, ignore_errors=True)
        _merge(folder, writing)
        os.rename(writing, merged)
    return merged.resolve()


def _merge(adapter: Path, out: Path) -> None:
    """Base and adapter as one plain model, in the type that the base is stored in."""
    local = load_model(adapter, device="cpu", as_stored=True)
    network = merge_weights(local)
    network.generation_config.eos_token_id = list(find_stop_ids(local.tokenizer, network))
    save_model(LocalModel(network, local.tokenizer, "cpu"), out)


def _generation_config(model: str | Path, revision: str | None) -> GenerationConfig:
    folder, kind = Path(model).expanduser(), cast(Any, GenerationConfig)
    try:
        return cast(
            GenerationConfig,
            kind.from_pretrained(
                str(folder if folder.is_dir() else model),
                revision="main" if folder.is_dir() or revision is None else revision,
                local_files_only=folder.is_dir(),
            ),
        )
    except OSError:  # it has none of its own
        return cast(GenerationConfig, kind())
