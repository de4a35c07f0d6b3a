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

from bridgekd.lm.encode import adds_bos, prompt_ids, render_prompt, stop_ids
from bridgekd.lm.forward import Row
from bridgekd.lm.judging import judged_rows, judgement_words, said_rows
from bridgekd.lm.loading import LocalModel, adapter_base, load, load_tokenizer, save
from bridgekd.lm.merging import whole_network
from bridgekd.lm.options import Options, read_options
from bridgekd.lm.questions import gold_rows
from bridgekd.records import Example, Message

__all__ = ["Options", "Row", "Tokens", "read_tokens", "served_folder"]


@dataclass(frozen=True, slots=True)
class Tokens:
    """A model's tokenizer without its weights, and the tokens after which its texts are over."""

    tokenizer: PreTrainedTokenizerBase
    stop: tuple[int, ...]

    def prompts(self, prompts: Sequence[tuple[Message, ...]]) -> list[list[int]]:
        """The tokens of every prompt, up to where the answer starts."""
        return prompt_ids(self.tokenizer, prompts)

    def texts(self, prompts: Sequence[tuple[Message, ...]]) -> list[str]:
        """Every prompt as a text that the model's own tokenizer, which may put a BOS of its own
        before it, reads as the tokens of `prompts`.
        """
        bos = str(self.tokenizer.bos_token) if adds_bos(self.tokenizer) else ""
        return [render_prompt(self.tokenizer, prompt).removeprefix(bos) for prompt in prompts]

    def reads(self, text: str) -> list[int]:
        """The tokens of a text as a server reads it."""
        return list(self.tokenizer(text)["input_ids"])

    def gold(self, examples: Sequence[Example]) -> list[Row]:
        """Every example's answer prompt and gold answer; BadInput where there is none."""
        return gold_rows(self, examples)

    def options(self, examples: Sequence[Example]) -> list[Options]:
        """Every example's answer prompt and options."""
        return read_options(self, examples)

    def judged(self, pairs: Sequence[tuple[Example, str]]) -> tuple[list[Row], list[Row]]:
        """Every pair's judge prompt, with what stands for true and with what stands for false."""
        true, false = judgement_words(self)
        return judged_rows(self, pairs, true), judged_rows(self, pairs, false)

    def said(self, pairs: Sequence[tuple[Example, str]]) -> list[Row]:
        """Every pair's explain prompt and its text."""
        return said_rows(self, pairs)


@dataclass(frozen=True, slots=True)
class _Weightless:
    """What `stop_ids` asks of a model."""

    generation_config: GenerationConfig


def read_tokens(model: str | Path, revision: str | None = None) -> Tokens:
    """The tokens of a Hub id or folder; the model's weights are not touched."""
    base, base_revision = adapter_base(model) or (model, revision)
    tokenizer = load_tokenizer(model, revision)
    stop = stop_ids(tokenizer, _Weightless(_generation_config(base, base_revision)))
    return Tokens(tokenizer, stop)


def served_folder(model: str | Path, revision: str | None, room: Path, name: str) -> Path | None:
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
    if adapter_base(folder) is None:
        return folder.resolve()
    merged, writing = room / name, room / f"{name}.writing"
    if not merged.is_dir():
        shutil.rmtree(writing, ignore_errors=True)
        _merge(folder, writing)
        os.rename(writing, merged)
    return merged.resolve()


def _merge(adapter: Path, out: Path) -> None:
    """Base and adapter as one plain model, in the type that the base is stored in."""
    local = load(adapter, device="cpu", as_stored=True)
    network = whole_network(local)
    network.generation_config.eos_token_id = list(stop_ids(local.tokenizer, network))
    save(LocalModel(network, local.tokenizer, "cpu"), out)


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
