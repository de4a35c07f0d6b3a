"""Local models from a Hub id or a folder, and back to a folder.

The one idea: whatever comes in (a plain checkpoint, a PEFT adapter, a tokenizer without padding or
template) leaves as a `LocalModel` that every other module here can use without asking what it was.
A model given as a folder is loaded without the network.
"""

import inspect
import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import peft
import torch
import transformers
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from bridgekd.errors import InputError
from bridgekd.lm.tokenization import FALLBACK_TEMPLATE, find_stop_ids, has_bos
from bridgekd.recipe import LoraOptions

ADAPTER_CONFIG = "adapter_config.json"
# Tokens that mean padding in known vocabularies; used only where the tokenizer already holds them.
PAD_TOKENS = ("<pad>", "[PAD]", "<|pad|>", "<|finetune_right_pad_id|>", "<|endoftext|>")
POSITION_TABLES = ("wpe", "embed_positions", "position_embeddings")  # as families name them
LOAD_ERRORS = (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError)


@dataclass(frozen=True)
class LocalModel:
    """A causal LM with its tokenizer on one device. `model` may be a PEFT model over the base.

    `free_bytes`: the memory that batches may count on; None: what is free when they are made.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: str
    free_bytes: int | None = None


def resolve_device(name: str) -> str:
    """The torch device that `name` means: `auto` is cuda, else mps, else cpu.

    Raises InputError for a device that is unknown or not present.
    """
    present = {"cpu": True}
    present["cuda"] = torch.cuda.is_available()
    present["mps"] = torch.backends.mps.is_available()
    if name == "auto":
        return next(device for device in ("cuda", "mps", "cpu") if present[device])
    kind, _, index = name.partition(":")
    known = present.get(kind, False) and (not index or (kind == "cuda" and index.isdigit()))
    if not known or (index and int(index) >= torch.cuda.device_count()):
        here = ", ".join(device for device, is_here in present.items() if is_here)
        raise InputError(
            f"device {name!r} is not on this machine (it has {here}); use auto or one of these"
        )
    return name


def load_model(
    model: str | Path,
    *,
    device: str,
    revision: str | None = None,
    trainable: bool = False,
    lora: LoraOptions | None = None,
    attention: str | None = None,
    as_stored: bool = False,
) -> LocalModel:
    """The model of a Hub id or folder on `device`, ready to train, to generate or to score.

    A folder with a PEFT adapter gives its base with the adapter on it; `lora` then continues that
    adapter and its own shape stands. Weights are float32 on CPU and MPS, and wherever all of them
    are trained; otherwise bfloat16 on a CUDA device that has it; `as_stored` leaves them as they
    are on disk. `attention` is an implementation that transformers knows; None leaves the choice to
    it. Raises InputError for what is missing, cannot be fetched or is no causal LM.
    """
    _silence_libraries()
    device = resolve_device(device)
    source = _check_source(model)
    adapter = _read_adapter_config(source)
    base = (
        _check_source(adapter["base_model_name_or_path"], f"the base of {model}")
        if adapter
        else source
    )
    base_revision = adapter.get("revision") if adapter else revision
    tokenizer = _load_tokenizer(source, base, base_revision)
    wanted = _dtype(device, trained_whole=trainable and lora is None and not adapter)
    dtype = "auto" if as_stored else wanted
    settings: dict[str, Any] = {"dtype": dtype, "low_cpu_mem_usage": True}
    if attention is not None:
        settings["attn_implementation"] = attention
    if trainable and lora is not None and lora.quantize is not None:
        settings["quantization_config"] = _build_quantization(lora.quantize)
    network: Any = _fetch(AutoModelForCausalLM, base, base_revision, **settings)
    n_rows = network.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > n_rows:
        raise InputError(
            f"the tokenizer of {model} has {len(tokenizer)} tokens and its model only {n_rows}; "
            "give a folder whose tokenizer and weights belong together"
        )
    if adapter:
        network = _add_adapter(network, source, trainable)
    elif lora is not None and trainable:
        network = _add_lora(network, lora, base, base_revision)
    network.generation_config.eos_token_id = list(find_stop_ids(tokenizer, network))
    network.to(device)
    network.train(trainable)
    return LocalModel(cast(PreTrainedModel, network), tokenizer, device)


def save_model(local: LocalModel, folder: Path) -> None:
    """Writes safetensors, tokenizer and chat template into `folder`; for PEFT the adapter alone.

    The adapter's `adapter_config.json` names the base and its revision.
    """
    _silence_libraries()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        local.model.save_pretrained(folder)
    except SafetensorError as exc:  # a full disk comes as text
        code = re.search(r"os error (\d+)", str(exc))
        if code is None:
            raise
        raise OSError(int(code[1]), str(exc)) from exc
    local.tokenizer.save_pretrained(folder)


def load_tokenizer(model: str | Path, revision: str | None) -> PreTrainedTokenizerBase:
    """The tokenizer of a Hub id or folder as `load` gives it, without the weights."""
    _silence_libraries()
    source = _check_source(model)
    base, base_revision = find_adapter_base(source) or (source, revision)
    return _load_tokenizer(source, base, base_revision)


def find_adapter_base(model: str | Path) -> tuple[str | Path, str | None] | None:
    """The base (folder or Hub id) and its revision of an adapter folder; None for a plain model."""
    adapter = _read_adapter_config(_check_source(model))
    if not adapter:
        return None
    base = _check_source(adapter["base_model_name_or_path"], f"the base of {model}")
    return base, adapter.get("revision")


def get_model_name(local: LocalModel) -> str:
    """Return the Hub id or folder of the model, for messages."""
    config: Any = local.model.config
    return str(config.name_or_path or config.model_type)


def get_max_positions(local: LocalModel) -> int | None:
    """The longest sequence the model was made for, in tokens; None where it has no such limit."""
    limit = getattr(local.model.config, "max_position_embeddings", None)
    return int(limit) if limit else None


def check_fits_positions(local: LocalModel, n_tokens: int) -> None:
    """Raises InputError where a text of `n_tokens` passes a model's table of positions (GPT-2,
    OPT).

    Models without such a table can read on, if not well.
    """
    names = (name for name, part in local.model.named_modules() if isinstance(part, nn.Embedding))
    has_table = any(name.rpartition(".")[2] in POSITION_TABLES for name in names)
    limit = get_max_positions(local)
    if has_table and limit is not None and n_tokens > limit:
        kind = local.model.config.model_type
        raise InputError(
            f"a text of up to {n_tokens} tokens does not fit {kind}, which has {limit} positions; "
            "lower max_new_tokens, shorten or leave out the longest questions, or use a model with "
            "more"
        )


def unwrap_model(model: Any) -> Any:
    """The transformers model itself, without PEFT around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def filter_forward_arguments(model: Any, **optional: Any) -> dict[str, Any]:
    """Those of `optional` that the model's forward knows; families differ in them."""
    known = inspect.signature(unwrap_model(model).forward).parameters
    return {name: value for name, value in optional.items() if name in known}


def _silence_libraries() -> None:
    chatter: Any = transformers.logging
    chatter.set_verbosity_error()
    chatter.disable_progress_bar()


@contextmanager
def _ignore_future_warnings() -> Iterator[None]:
    """peft calls what transformers has renamed; that is between the two."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _check_source(model: str | Path, what: str = "") -> str | Path:
    """A folder as a Path, anything that may be a Hub id as text."""
    folder = Path(model).expanduser()
    called = f" ({what})" if what else ""
    if folder.is_dir():
        if not any((folder / name).is_file() for name in ("config.json", ADAPTER_CONFIG)):
            raise InputError(
                f"folder {model}{called} holds no model: it has neither config.json nor "
                f"{ADAPTER_CONFIG}; give a folder that save_pretrained wrote"
            )
        return folder
    text = str(model)
    if isinstance(model, Path) or text.startswith((".", "~", "/")) or text.count("/") != 1:
        if not isinstance(model, Path) and "/" not in text and not text.startswith((".", "~")):
            return text  # an old id without an owner, such as gpt2
        raise InputError(
            f"model folder {model}{called} does not exist; give an existing folder or a Hub id"
        )
    return text


def _read_adapter_config(source: str | Path) -> dict[str, Any]:
    """What `adapter_config.json` says; empty for a plain model. Adapters come from folders only."""
    if not isinstance(source, Path) or not (source / ADAPTER_CONFIG).is_file():
        return {}
    try:
        settings: dict[str, Any] = json.loads((source / ADAPTER_CONFIG).read_text("utf-8"))
        settings["base_model_name_or_path"] = str(settings["base_model_name_or_path"])
    except (ValueError, KeyError) as exc:
        raise InputError(
            f"{source / ADAPTER_CONFIG} names no base model; save the adapter again"
        ) from exc
    return settings


def _fetch(kind: Any, source: str | Path, revision: str | None, **settings: Any) -> Any:
    """`kind.from_pretrained`, every failure as one sentence."""
    is_folder = isinstance(source, Path)
    try:
        return kind.from_pretrained(
            str(source),
            revision=None if is_folder else revision,
            local_files_only=is_folder,
            **settings,
        )
    except LOAD_ERRORS as exc:
        reason = (str(exc).strip().splitlines() or [type(exc).__name__])[0]
        if is_folder:
            hint = "give a folder that save_pretrained wrote for a causal LM"
        else:
            hint = "check the id, the revision and the network, or give a folder"
        raise InputError(f"model {source} cannot be loaded ({reason}); {hint}") from exc


def _load_tokenizer(
    source: str | Path, base: str | Path, revision: str | None
) -> PreTrainedTokenizerBase:
    """The tokenizer with an end, a padding token and a chat template."""
    own = isinstance(source, Path) and any(source.glob("tokenizer*"))
    home = source if own else base
    tokenizer: PreTrainedTokenizerBase = _fetch(_get_tokenizer_class(home), home, revision)
    if tokenizer.eos_token_id is None:
        raise InputError(f"the tokenizer of {source} has no end-of-text token; set its eos_token")
    if tokenizer.pad_token_id is None:
        vocabulary = tokenizer.get_vocab()
        tokenizer.pad_token = next(
            (token for token in PAD_TOKENS if token in vocabulary), tokenizer.eos_token
        )
    tokenizer.padding_side = "left"
    if not tokenizer.chat_template:
        start = "{{ bos_token }}" if has_bos(tokenizer) else ""
        tokenizer.chat_template = start + FALLBACK_TEMPLATE
    return tokenizer


def _get_tokenizer_class(home: str | Path) -> Any:
    """AutoTokenizer, except where a folder declares that its tokenizer.json is all there is.

    For some architectures (Qwen2) AutoTokenizer takes the family's own class whatever the folder
    declares, and so splits text otherwise than the tokenizer that was saved.
    """
    declared = Path(home) / "tokenizer_config.json"
    if not isinstance(home, Path) or not declared.is_file():
        return AutoTokenizer
    try:
        name = json.loads(declared.read_text("utf-8")).get("tokenizer_class")
    except (ValueError, AttributeError) as exc:
        raise InputError(f"{declared} is not a JSON object; save the tokenizer again") from exc
    generic = {"PreTrainedTokenizerFast", "TokenizersBackend"}
    return PreTrainedTokenizerFast if name in generic else AutoTokenizer


def _dtype(device: str, trained_whole: bool) -> torch.dtype:
    if device.startswith("cuda") and not trained_whole and torch.cuda.is_bf16_supported():
        return torch.bfloat16
    return torch.float32


def _build_quantization(how: str) -> Any:
    """QLoRA's 4 bits (arXiv 2305.14314: nf4, double quantisation) or 8 bits."""
    if find_spec("bitsandbytes") is None:
        raise InputError(
            f"lora.quantize: {how} needs bitsandbytes, which is not installed; "
            "pip install bitsandbytes, or leave quantize out"
        )
    settings: Any = BitsAndBytesConfig
    if how == "8bit":
        return settings(load_in_8bit=True)
    return settings(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def _add_adapter(network: Any, folder: str | Path, trainable: bool) -> Any:
    try:
        with _ignore_future_warnings():
            return peft.PeftModel.from_pretrained(network, str(folder), is_trainable=trainable)
    except LOAD_ERRORS as exc:
        reason = (str(exc).strip().splitlines() or [type(exc).__name__])[0]
        raise InputError(
            f"adapter {folder} does not fit its base ({reason}); save it again"
        ) from exc


def _add_lora(network: Any, lora: LoraOptions, base: str | Path, revision: str | None) -> Any:
    targets = lora.target_modules
    settings = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        revision=revision,
        base_model_name_or_path=str(base),
    )
    try:
        with _ignore_future_warnings():
            return peft.get_peft_model(network, settings)
    except ValueError as exc:
        raise InputError(f"lora does not fit {base}: {exc}; check lora.target_modules") from exc
