"""The tokenizer and the folder of a model that an inference server runs.

Requests to a server are tokenized here, by the functions that training and local scoring use. So
the server sees the tokens of the training, and it is known which of them belong to the answer.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from transformers import GenerationConfig, PreTrainedTokenizerBase

from bridgekd.lm.adapters import merge_weights
from bridgekd.lm.choice_logprobs import ChoiceSet, tokenize_choices
from bridgekd.lm.confidence import Pairs, build_judge_rows, build_text_rows, find_judge_tokens
from bridgekd.lm.forward import ScoringRow as ScoringRow
from bridgekd.lm.load import (
    LocalModel,
    find_adapter_base,
    load_model,
    load_tokenizer,
    save_model,
    translate_load_errors,
)
from bridgekd.lm.reference_model import tokenize_reference_rows
from bridgekd.lm.score_inputs import build_gold_rows
from bridgekd.lm.target_logprobs import build_target_rows, join_logprobs
from bridgekd.lm.tokenization import (
    find_plain_prompts,
    find_stop_ids,
    has_bos,
    render_prompt,
    split_prefix,
    tokenize_prompts,
)
from bridgekd.records import Example, Message, TargetLogprobs, TrainingSequence


@dataclass(frozen=True, slots=True)
class RemoteTokenizer:
    """The tokenizer of a model without its weights, and the tokens that end a text."""

    tokenizer: PreTrainedTokenizerBase
    stop_ids: tuple[int, ...]

    def tokenize_prompts(self, prompts: Sequence[tuple[Message, ...]]) -> list[list[int]]:
        """Return the tokens of every prompt, up to the start of the answer."""
        return tokenize_prompts(self.tokenizer, prompts)

    def render_prompts(self, prompts: Sequence[tuple[Message, ...]]) -> list[str]:
        """Return every prompt as a text without the BOS that the model's tokenizer adds itself."""
        bos = str(self.tokenizer.bos_token) if has_bos(self.tokenizer) else ""
        return [
            render_prompt(self.tokenizer, prompt).removeprefix(bos) + prefix
            for prompt, prefix in map(split_prefix, prompts)
        ]

    def find_plain_prompts(self, prompts: Sequence[tuple[Message, ...]]) -> list[bool]:
        """Return for each prompt whether the tokenizer reads no control token in its messages."""
        return find_plain_prompts(self.tokenizer, prompts)

    def tokenize_text(self, text: str) -> list[int]:
        """Return the tokens of a text as a server reads it."""
        return list(self.tokenizer(text)["input_ids"])

    def count_tokens(self, text: str) -> int:
        """Return the number of tokens of a generated text."""
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def build_gold_rows(self, examples: Sequence[Example]) -> list[ScoringRow]:
        """Return the prompt and the gold answer of every example; raise InputError without one."""
        return build_gold_rows(self.tokenizer, examples)

    def build_choice_rows(self, examples: Sequence[Example]) -> list[ChoiceSet]:
        """Return the prompt and the choices of every example."""
        return tokenize_choices(self.tokenizer, examples)

    def build_judge_rows(self, pairs: Pairs) -> tuple[list[ScoringRow], list[ScoringRow]]:
        """Return the judge prompt of every pair, followed by "True" and followed by "False"."""
        true, false = find_judge_tokens(self.tokenizer)
        return build_judge_rows(self.tokenizer, pairs, true), build_judge_rows(
            self.tokenizer, pairs, false
        )

    def build_text_rows(self, pairs: Pairs) -> list[ScoringRow]:
        """Return the chain-of-thought prompt of every pair, followed by its text."""
        return build_text_rows(self.tokenizer, pairs)

    def build_target_rows(self, sequences: Sequence[TrainingSequence]) -> list[ScoringRow]:
        """Return the prompt of a reference model and the target of every sequence."""
        return build_target_rows(tokenize_reference_rows(self.tokenizer, sequences))

    def join_logprobs(
        self, sequences: Sequence[TrainingSequence], logprobs: Sequence[Sequence[float]]
    ) -> list[TargetLogprobs]:
        """Return the log-probabilities of each target with the ends of its tokens."""
        return join_logprobs(self.tokenizer, sequences, logprobs)


def load_remote_tokenizer(model: str | Path, revision: str | None = None) -> RemoteTokenizer:
    """Return the tokenizer of a Hub id or folder, without loading the weights."""
    base, base_revision = find_adapter_base(model) or (model, revision)
    tokenizer = load_tokenizer(model, revision)
    config = SimpleNamespace(generation_config=_load_generation_config(base, base_revision))
    return RemoteTokenizer(tokenizer, find_stop_ids(tokenizer, config))


def prepare_model_folder(
    model: str | Path, revision: str | None, workdir: Path, name: str
) -> Path | None:
    """Return the folder that a server loads for a model.

    For an adapter this is `workdir/name`, with base and adapter merged into safetensors of the
    base's precision; it is written if it does not exist. None for a Hub id without a revision: the
    server downloads it.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir() and revision is None:
        return None
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(str(model), revision=revision))
    if find_adapter_base(folder) is None:
        return folder.resolve()
    merged, partial = workdir / name, workdir / f"{name}.writing"
    if not merged.is_dir():
        shutil.rmtree(partial, ignore_errors=True)
        local = load_model(folder, device="cpu", as_stored=True)
        network = merge_weights(local.model)
        network.generation_config.eos_token_id = list(find_stop_ids(local.tokenizer, network))
        save_model(LocalModel(network, local.tokenizer, "cpu"), partial)
        os.rename(partial, merged)
    return merged.resolve()


def _load_generation_config(model: str | Path, revision: str | None) -> Any:
    folder = Path(model).expanduser()
    config_class: Any = GenerationConfig
    hint = "Save it again, or remove the file."
    with translate_load_errors(f"The generation config of {model} cannot be read", hint):
        try:
            return config_class.from_pretrained(
                str(folder if folder.is_dir() else model),
                revision="main" if folder.is_dir() or revision is None else revision,
                local_files_only=folder.is_dir(),
            )
        except OSError:  # the model has no generation config
            return config_class()
