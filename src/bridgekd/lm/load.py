"""Local models: loaded from a Hub id or a folder, and saved to a folder.

Every model (a plain checkpoint, a PEFT adapter, a tokenizer without a padding token or a chat
template) becomes a `LocalModel` that the other modules use in the same way. A model in a folder is
loaded without the network.
"""

import inspect
import json
import logging
import pickle
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import peft
import torch
import transformers
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from bridgekd.errors import InputError
from bridgekd.lm.adapters import merge_weights
from bridgekd.lm.tokenization import FALLBACK_TEMPLATE, find_stop_ids, has_bos
from bridgekd.messages import format_value
from bridgekd.recipe import LoraOptions, Precision

log = logging.getLogger(__name__)
ADAPTER_CONFIG = "adapter_config.json"
# Padding tokens of known vocabularies. Used only if the tokenizer already has them.
PAD_TOKENS = ("<pad>", "[PAD]", "<|pad|>", "<|finetune_right_pad_id|>", "<|endoftext|>")
POSITION_TABLES = ("wpe", "embed_positions", "position_embeddings")  # names in several families

_logging: Any = transformers.logging
_logging.set_verbosity_error()
_logging.disable_progress_bar()


@dataclass(frozen=True)
class LocalModel:
    """A causal language model and its tokenizer on one device. `model` may be a PEFT model.

    free_bytes: the free memory that batches are planned for; None: measured before each batch size
    is chosen.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: str
    free_bytes: int | None = None


def resolve_device(name: str) -> str:
    """Return the torch device with this name; `auto` is cuda, else mps, else cpu.

    Raises InputError for a device that is not available.
    """
    available = ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available()
    available.append("cpu")
    if name == "auto":
        return available[0]
    if name not in (*available, *(f"cuda:{i}" for i in range(torch.cuda.device_count()))):
        raise InputError(
            f"Device {format_value(name)} is not available. This machine has "
            f"{', '.join(available)}. Use auto or one of these."
        )
    return name


def uses_bfloat16(device: str, precision: Precision) -> bool:
    """Return whether a model computes in bfloat16; `auto`: on a CUDA device that supports it."""
    if precision == "auto":
        return device.startswith("cuda") and torch.cuda.is_bf16_supported()
    return precision == "bfloat16"


def load_model(
    model: str | Path,
    *,
    device: str,
    revision: str | None = None,
    trainable: bool = False,
    lora: LoraOptions | None = None,
    attention: str | None = None,
    precision: Precision = "auto",
    as_stored: bool = False,
) -> LocalModel:
    """Return the model of a Hub id or folder on `device`, ready to train, generate or score.

    A folder with a PEFT adapter gives the base model with this adapter, which is merged for
    inference in float32 (bfloat16 would round it). If `lora` is set, training continues this
    adapter and keeps its own shape. Weights are float32 for a training of all
    weights, otherwise as `uses_bfloat16` says. While an adapter is trained, frozen weights that are
    stored in 16 bits are bfloat16 on a CPU that computes fast in it, too; the adapter is float32.
    `as_stored` keeps the type on disk. `attention` is an implementation of transformers; None is
    its default. Raises InputError if the model is missing, cannot be downloaded, or is not a causal
    language model.
    """
    device = resolve_device(device)
    source = _check_source(model)
    adapter_base = find_adapter_base(model)
    base, base_revision = adapter_base or (source, revision)
    tokenizer = _load_tokenizer(source, base, base_revision)
    trains_all = trainable and lora is None and adapter_base is None
    quantize = lora.quantize if trainable and lora is not None else None
    dtype = torch.bfloat16 if uses_bfloat16(device, precision) and not trains_all else torch.float32
    if trainable and not trains_all and precision == "auto" and device == "cpu":
        dtype = _choose_frozen_dtype(base, base_revision)
    network: Any = _fetch(
        AutoModelForCausalLM,
        base,
        base_revision,
        dtype="auto" if as_stored else dtype,
        attn_implementation=attention,
        quantization_config=None if quantize is None else _build_quantization(quantize),
    )
    n_rows = network.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > n_rows:
        raise InputError(
            f"The tokenizer of {model} has {len(tokenizer)} tokens, but its model has only "
            f"{n_rows}. Use a folder whose tokenizer and weights belong together."
        )
    if adapter_base is not None:
        network = _add_adapter(network, source, trainable)
        if not trainable and network.dtype == torch.float32:
            network = merge_weights(network)
    elif lora is not None and trainable:
        network = _add_lora(network, lora, base, base_revision)
    network.generation_config.eos_token_id = list(find_stop_ids(tokenizer, network))
    network.to(device)
    network.train(trainable)
    return LocalModel(cast(PreTrainedModel, network), tokenizer, device)


def save_model(local: LocalModel, folder: Path) -> None:
    """Write safetensors, tokenizer and chat template into `folder`; of a PEFT model the adapter.

    The `adapter_config.json` of an adapter names the base model and its revision.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        local.model.save_pretrained(folder)
    except SafetensorError as exc:  # the error of a full disk has its number in the text only
        code = re.search(r"os error (\d+)", str(exc))
        if code is None:
            raise
        raise OSError(int(code[1]), str(exc)) from exc
    local.tokenizer.save_pretrained(folder)


def load_tokenizer(model: str | Path, revision: str | None) -> PreTrainedTokenizerBase:
    """Return the tokenizer that `load_model` returns, without loading the weights."""
    source = _check_source(model)
    base, base_revision = find_adapter_base(model) or (source, revision)
    return _load_tokenizer(source, base, base_revision)


def find_adapter_base(model: str | Path) -> tuple[str | Path, str | None] | None:
    """Return the base (folder or Hub id) and its revision of an adapter folder.

    None for a model without an adapter. An adapter must be in a folder.
    """
    source = _check_source(model)
    if not isinstance(source, Path) or not (source / ADAPTER_CONFIG).is_file():
        return None
    try:
        config = peft.PeftConfig.from_pretrained(str(source))
    except (ValueError, KeyError, TypeError) as exc:
        raise InputError(
            f"{source / ADAPTER_CONFIG} cannot be read ({get_first_line(exc)}). Save the adapter "
            "again."
        ) from exc
    if not config.base_model_name_or_path:
        raise InputError(f"{source / ADAPTER_CONFIG} names no base model. Save the adapter again.")
    base = _check_source(str(config.base_model_name_or_path), f"the base of {model}")
    return base, config.revision


def get_model_name(local: LocalModel) -> str:
    """Return the Hub id or folder of the model, for messages."""
    config: Any = local.model.config
    return str(config.name_or_path or config.model_type)


def get_max_positions(local: LocalModel) -> int | None:
    """Return the maximum length in tokens that the model was made for; None without a limit."""
    limit = getattr(local.model.config, "max_position_embeddings", None)
    return int(limit) if limit else None


def check_fits_positions(local: LocalModel, n_tokens: int) -> None:
    """Raise InputError if `n_tokens` tokens exceed a position table (GPT-2, OPT).

    Models without such a table can read longer texts, with lower quality.
    """
    names = (name for name, part in local.model.named_modules() if isinstance(part, nn.Embedding))
    has_table = any(name.rpartition(".")[2] in POSITION_TABLES for name in names)
    limit = get_max_positions(local)
    if has_table and limit is not None and n_tokens > limit:
        raise InputError(
            f"A text of up to {n_tokens} tokens does not fit {local.model.config.model_type}, "
            f"which has {limit} positions. Lower max_new_tokens, shorten or remove the longest "
            "questions, or use a model with more positions."
        )


def unwrap_model(model: Any) -> Any:
    """Return the transformers model inside a PEFT model, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def supports_argument(model: Any, name: str) -> bool:
    """Return whether the model's forward takes this argument; model families differ."""
    return name in inspect.signature(unwrap_model(model).forward).parameters


def get_first_line(exc: BaseException) -> str:
    """Return the first line of an error message; the type of the error if there is none."""
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0]


@contextmanager
def translate_load_errors(problem: str, hint: str) -> Iterator[None]:
    """Raise every error of a foreign loader as an InputError with a problem, its cause and a hint.

    A broken file raises almost any error here; the tokenizers package raises Exception itself.
    """
    try:
        yield
    except InputError:
        raise
    except pickle.UnpicklingError as exc:
        reason = "its pickle file holds more than weights, and loading it could run code"
        raise InputError(f"{problem} ({reason}). Save it as safetensors.") from exc
    except Exception as exc:
        raise InputError(f"{problem} ({get_first_line(exc).rstrip('.:')}). {hint}") from exc


def _check_source(model: str | Path, role: str = "") -> str | Path:
    """Return a folder as a Path and a possible Hub id as a string."""
    folder = Path(model).expanduser()
    name = f"{model} ({role})" if role else str(model)
    if folder.is_dir():
        if not any((folder / file).is_file() for file in ("config.json", ADAPTER_CONFIG)):
            raise InputError(
                f"Folder {name} has no model: it has neither config.json nor {ADAPTER_CONFIG}. Use "
                "a folder that save_pretrained wrote."
            )
        return folder
    text = str(model)
    # A Hub id is owner/name, or a single name such as gpt2.
    if isinstance(model, Path) or text.startswith((".", "~", "/")) or text.count("/") > 1:
        raise InputError(f"Model folder {name} does not exist. Use an existing folder or a Hub id.")
    return text


def _fetch(auto_class: Any, source: str | Path, revision: str | None, **settings: object) -> Any:
    """Call `from_pretrained` without the settings that are None; translate every error."""
    is_folder = isinstance(source, Path)
    hint = "Check the id, the revision and the network, or use a folder."
    if is_folder:
        hint = "Use a folder that save_pretrained wrote for a causal language model."
    with translate_load_errors(f"Model {source} cannot be loaded", hint):
        return auto_class.from_pretrained(
            str(source),
            revision=None if is_folder else revision,
            local_files_only=is_folder,
            trust_remote_code=False,  # otherwise transformers asks on stdin, in the middle of a run
            **{name: value for name, value in settings.items() if value is not None},
        )


def _load_tokenizer(
    source: str | Path, base: str | Path, revision: str | None
) -> PreTrainedTokenizerBase:
    """Return the tokenizer with an end token, a padding token and a chat template."""
    has_own = isinstance(source, Path) and any(source.glob("tokenizer*"))
    home = source if has_own else base
    tokenizer: PreTrainedTokenizerBase = _fetch(_get_tokenizer_class(home), home, revision)
    if tokenizer.eos_token_id is None:
        raise InputError(f"The tokenizer of {source} has no end-of-text token. Set its eos_token.")
    if tokenizer.pad_token_id is None:
        vocabulary = tokenizer.get_vocab()
        tokenizer.pad_token = next(
            (token for token in PAD_TOKENS if token in vocabulary), tokenizer.eos_token
        )
    tokenizer.padding_side = "left"
    if not tokenizer.chat_template:
        _report_missing_template(str(source))
        start = "{{ bos_token }}" if has_bos(tokenizer) else ""
        tokenizer.chat_template = start + FALLBACK_TEMPLATE
    return tokenizer


@cache
def _report_missing_template(source: str) -> None:
    """Log once per model how it is prompted."""
    log.warning(
        "%s has no chat template. Its prompt is plain text: every message and a line break.", source
    )


def _get_tokenizer_class(source: str | Path) -> Any:
    """Return AutoTokenizer, or the generic class if the folder declares it.

    For some architectures (Qwen2) AutoTokenizer ignores this declaration and uses the class of the
    family, which splits text in another way than the saved tokenizer.
    """
    file = Path(source) / "tokenizer_config.json"
    if not isinstance(source, Path) or not file.is_file():
        return AutoTokenizer
    try:
        name = json.loads(file.read_text("utf-8")).get("tokenizer_class")
    except (ValueError, AttributeError) as exc:
        raise InputError(f"{file} is not a JSON object. Save the tokenizer again.") from exc
    generic = {"PreTrainedTokenizerFast", "TokenizersBackend"}
    return PreTrainedTokenizerFast if name in generic else AutoTokenizer


def has_fast_bfloat16() -> bool:
    """Return whether this CPU has instructions for bfloat16.

    With AVX512-BF16 a product of matrices takes half of the time of float32 (measured). Without
    such instructions, bfloat16 is slower than float32.
    """
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _choose_frozen_dtype(base: str | Path, revision: str | None) -> torch.dtype:
    """Return the type of frozen weights on a CPU: the narrowest fast one that loses nothing."""
    stored = _fetch(AutoConfig, base, revision).get_text_config().dtype
    is_narrow = stored in (torch.bfloat16, torch.float16)
    return torch.bfloat16 if is_narrow and has_fast_bfloat16() else torch.float32


def _build_quantization(quantize: str) -> Any:
    """Return the settings for 8 bits, or for 4 bits as in QLoRA (arXiv 2305.14314)."""
    if find_spec("bitsandbytes") is None:
        raise InputError(
            f"lora.quantize: {quantize} needs bitsandbytes, which is not installed. Run: "
            "pip install bitsandbytes, or remove quantize."
        )
    config_class: Any = BitsAndBytesConfig
    if quantize == "8bit":
        return config_class(load_in_8bit=True)
    return config_class(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def _add_adapter(network: Any, folder: str | Path, trainable: bool) -> Any:
    # peft uses names that transformers deprecates. Users cannot fix that.
    with (
        translate_load_errors(f"Adapter {folder} does not fit its base", "Save it again."),
        warnings.catch_warnings(action="ignore", category=FutureWarning),
    ):
        return peft.PeftModel.from_pretrained(network, str(folder), is_trainable=trainable)


def _add_lora(network: Any, lora: LoraOptions, base: str | Path, revision: str | None) -> Any:
    targets = lora.target_modules
    config = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        revision=revision,
        base_model_name_or_path=str(base),
    )
    try:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):
            return peft.get_peft_model(network, config)
    except ValueError as exc:
        raise InputError(f"LoRA does not fit {base}: {exc}. Check lora.target_modules.") from exc
