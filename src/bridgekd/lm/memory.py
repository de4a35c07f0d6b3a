"""Batch sizes: estimated from free memory, and halved when memory runs out.

A batch size changes time and memory, never a result, so it can be chosen here. A GPU reports an
error when memory runs out. On a CPU the kernel kills the process without an error, so the estimate
comes first. It is coarse and rather too high.
"""

import gc
import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low
from typing import Any

import psutil
import torch
from torch import Tensor

from bridgekd.errors import InputError
from bridgekd.lm.collate import batch_by_median_tokens
from bridgekd.lm.forward import MAX_LOGITS, ScoringRow, TokenReducer, compute_row_means
from bridgekd.lm.load import LocalModel, get_first_line, get_model_name, unwrap_model

DEFAULT_BATCH_SIZE = 64
USABLE_FRACTION = 0.5  # of free memory; the rest is for other processes and for wrong estimates
LOGIT_BYTES = 16  # of one float32 logit with its log-softmax and the gradients of both
ADAPTER_BYTES = 4
STATE_BYTES = 12  # of a trained weight: its gradient and two numbers of AdamW
# On a CPU, larger micro-batches are not faster.
MAX_ACTIVATION_BYTES = 2**31
CGROUP = Path("/sys/fs/cgroup")
CGROUP_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


@dataclass(frozen=True, slots=True)
class TokenCost:
    """Estimated bytes of one token: in a forward pass, in a key-value cache and in a training.

    A training keeps the activations of all layers. `attention`: what it keeps for each pair of
    tokens of a row. `logits`: the logits of one position.
    """

    forward: int
    cache: int
    training: int
    attention: int
    logits: int


def estimate_token_cost(local: LocalModel) -> TokenCost:
    """Return the bytes of one token from the sizes in the model's config."""
    config: Any = unwrap_model(local.model).config.get_text_config()
    width = int(config.hidden_size)
    inner = int(getattr(config, "intermediate_size", None) or 4 * width)
    n_heads = int(config.num_attention_heads)
    head = int(getattr(config, "head_dim", None) or width // n_heads)
    n_kv_heads = int(getattr(config, "num_key_value_heads", None) or n_heads)
    n_layers, n_heads = int(config.num_hidden_layers), int(config.num_attention_heads)
    dtype_bytes = torch.finfo(local.model.dtype).bits // 8
    # What autograd keeps of a layer; measured with Llama and Gemma 3, whose norms are more.
    layer = dtype_bytes * (12 * width + 5 * n_heads * head + 4 * inner)
    # Adapters have float32 weights, and each reads its own float32 copy of its input.
    has_adapter = unwrap_model(local.model) is not local.model
    if has_adapter and dtype_bytes < ADAPTER_BYTES:
        layer += ADAPTER_BYTES * (5 * width + n_heads * head + inner)
    # `eager` keeps the probabilities of each head, `sdpa` one mask per layer.
    is_eager = getattr(config, "_attn_implementation", "") == "eager"
    return TokenCost(
        forward=layer,
        cache=dtype_bytes * 2 * n_layers * n_kv_heads * head,
        training=n_layers * layer,
        attention=dtype_bytes * n_layers * (n_heads if is_eager else 1),
        logits=LOGIT_BYTES * int(config.vocab_size),
    )


def choose_scoring_batch(local: LocalModel, n_tokens: int) -> int:
    """Return how many rows of `n_tokens` tokens one forward pass may have."""
    cost = estimate_token_cost(local)
    max_logits = MAX_LOGITS * LOGIT_BYTES

    def estimate(n: int) -> int:
        return n * n_tokens * cost.forward + min(max_logits, n * n_tokens * cost.logits)

    return _fit_rows(estimate, _get_usable_bytes(local))


def choose_generation_batch(local: LocalModel, n_prompt: int, max_new_tokens: int) -> int:
    """Return how many rows may be generated at one time."""
    cost = estimate_token_cost(local)
    row = (n_prompt + max_new_tokens) * cost.cache + n_prompt * cost.forward + cost.logits
    return _fit_rows(lambda n: n * row, _get_usable_bytes(local))


def choose_micro_tokens(local: LocalModel, n_processes: int, max_length: int) -> int:
    """Return how many tokens, padding included, a micro-batch of a training may have.

    max_length: tokens of the longest row. The result is a power of two, so that small changes of
    free memory do not change it; 1 if memory holds no token. Call this after all models are loaded
    and before there are gradients. On a CPU all processes share the memory. Raises InputError if
    the gradients and the optimizer of a CPU training do not fit.
    """
    is_cpu = local.device == "cpu"
    free = get_free_bytes(local.device) if local.free_bytes is None else local.free_bytes
    share = free // (n_processes if is_cpu else 1)
    n_trained = sum(p.numel() for p in local.model.parameters() if p.requires_grad)
    states = STATE_BYTES * n_trained
    if is_cpu and states > share:
        raise InputError(
            f"Memory does not hold a training of {get_model_name(local)}: its gradients and "
            f"optimizer take {states / 2**30:.1f} GiB, and {share / 2**30:.1f} GiB are free. Use "
            "lora or a smaller model."
        )
    # The head and the embeddings each have a complete gradient before these are added.
    output = unwrap_model(local.model).get_output_embeddings().parameters()
    states += 2 * 4 * sum(p.numel() for p in output if p.requires_grad)
    usable = USABLE_FRACTION * share - states - LOGIT_BYTES * MAX_LOGITS
    cost = estimate_token_cost(local)
    token_bytes = cost.training + max_length * cost.attention
    n_tokens = int(min(usable, MAX_ACTIVATION_BYTES if is_cpu else usable) / token_bytes)
    return 1 << (max(1, n_tokens).bit_length() - 1)


def run_batches(
    model: str,
    lengths: Sequence[int],
    batches: Sequence[Sequence[int]],
    run: Callable[[list[int]], None],
    unit: str = "tokens",
) -> None:
    """Call `run` for every batch of row numbers; lengths[i] is the length of row i in `unit`.

    If memory runs out, the batch is halved, and so is every later one of that size. Raises
    InputError with the name of the model if memory does not hold one row.
    """
    queue, max_size = deque(list(batch) for batch in batches), None
    while queue:
        batch = queue.popleft()
        size = len(batch) * max(lengths[i] for i in batch)
        if len(batch) > 1 and max_size is not None and size > max_size:
            half = (len(batch) + 1) // 2
            queue.extendleft((batch[half:], batch[:half]))
            continue
        reason = _try_run(run, batch)
        if reason is not None:
            free_device_memory()
            if len(batch) == 1:
                raise InputError(
                    f"Memory does not hold {model} with a batch of 1 sequence of {size} {unit} "
                    f"({reason}). Lower max_new_tokens, shorten or remove the longest questions, "
                    "or use a smaller model."
                )
            max_size = size // 2
            queue.appendleft(batch)


def score_rows(
    local: LocalModel,
    rows: Sequence[ScoringRow],
    reduce: TokenReducer,
    batch_size: int | None,
    keep: Callable[[list[int], Tensor, Tensor], None],
) -> None:
    """Call `keep(row numbers, *compute_row_means(...))` for every batch of rows."""
    run_scoring(
        local,
        [len(row.ids) for row in rows],
        batch_size,
        lambda batch: keep(batch, *compute_row_means(local, [rows[i] for i in batch], reduce)),
    )


def run_scoring(
    local: LocalModel,
    lengths: Sequence[int],
    batch_size: int | None,
    run: Callable[[list[int]], None],
) -> None:
    """Call `run` for batches of similar length, longest first.

    A batch has at most the tokens of `batch_size` median rows. None: as many as memory holds.
    """
    if lengths:
        size = batch_size or choose_scoring_batch(local, median_low(lengths))
        run_batches(get_model_name(local), lengths, batch_by_median_tokens(lengths, size), run)


def get_free_bytes(device: str) -> int:
    """Return the bytes that are free for this process on a device.

    On a CPU this is the minimum of the machine and of the control group of the process.
    """
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    group = _find_cgroup()
    limits = [] if group is None else read_cgroup_free(group)
    return min([int(psutil.virtual_memory().available), *limits])


def free_device_memory() -> None:
    """Release the memory that deleted tensors and models left allocated on the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def get_out_of_memory_reason(exc: BaseException) -> str | None:
    """Return the first line of the error if it says that memory ran out, else None.

    CUDA has its own class for it. MPS and the allocator of the CPU raise a RuntimeError.
    """
    text = str(exc).lower()
    is_out_of_memory = isinstance(exc, MemoryError | torch.OutOfMemoryError) or any(
        words in text for words in ("out of memory", "can't allocate memory", "not enough memory")
    )
    return get_first_line(exc) if is_out_of_memory else None


def _try_run(run: Callable[[list[int]], None], batch: list[int]) -> str | None:
    """Return the reason if memory ran out. The exception, which references tensors, ends here."""
    try:
        run(batch)
    except (RuntimeError, MemoryError) as exc:
        reason = get_out_of_memory_reason(exc)
        if reason is None:
            raise
        return reason
    return None


def _get_usable_bytes(local: LocalModel) -> int:
    free = get_free_bytes(local.device) if local.free_bytes is None else local.free_bytes
    return int(USABLE_FRACTION * free)


def _fit_rows(estimate_bytes: Callable[[int], int], usable: int) -> int:
    """Return DEFAULT_BATCH_SIZE, halved until this number of rows fits; at least 1."""
    n = DEFAULT_BATCH_SIZE
    while n > 1 and estimate_bytes(n) > usable:
        n //= 2
    return n


def _find_cgroup() -> Path | None:
    """Return the folder of this process's control group: version 1, else version 2, or None."""
    try:
        text = Path("/proc/self/cgroup").read_text("utf-8")
    except OSError:  # not Linux
        return None
    for controller, folder in (("memory", CGROUP / "memory"), ("", CGROUP)):
        match = re.search(rf"^\d+:{controller}:/(.*)$", text, re.MULTILINE)
        if match is not None:
            return folder / match[1]
    return None


def read_cgroup_free(group: Path) -> list[int]:
    """Return the free bytes under every memory limit of a control group and of its parents.

    Cached file pages that the kernel can drop count as free.
    """
    free = []
    for folder in (group, *group.parents):
        for limit, usage, inactive in CGROUP_FILES:
            limit_bytes = _read_number(folder / limit)
            if limit_bytes is not None:
                used = _read_number(folder / usage) or 0
                cached = _read_number(folder / "memory.stat", inactive) or 0
                free.append(max(0, limit_bytes - used + cached))
    return free


def _read_number(file: Path, name: str = "") -> int | None:
    """Return the number after `name` in a file; None without the file, the name or a number."""
    try:
        text = file.read_text("ascii")
    except OSError:
        return None
    match = re.search(rf"^{name} ?(\d+)$", text, re.MULTILINE)
    return None if match is None else int(match[1])
