"""One forward pass over a batch that computes logits at selected positions only.

A hook on the decoder keeps only the hidden states at these positions before the model's own head
sees them. So no [batch, length, vocabulary] tensor exists, and everything that a model does between
hidden states and logits (scaling, soft caps) still happens.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bridgekd.lm.collate import pad_rows
from bridgekd.lm.load import LocalModel, check_fits_positions, supports_argument, unwrap_model

MAX_LOGITS = 2**26  # logits in memory at one time: 256 MiB in float32
TokenReducer = Callable[[Tensor, Tensor], Tensor]  # (logits [k, vocabulary], targets [k]) -> [k]


@dataclass(frozen=True, slots=True)
class ScoringRow:
    """The tokens of a prompt and its continuation. Only the last `n_scored` tokens are scored.

    `is_question` marks the tokens of the prompt that belong to the question.
    """

    ids: tuple[int, ...]
    is_question: tuple[bool, ...]
    n_scored: int


def token_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """Return -log p(target) in nats, [k]."""
    return F.cross_entropy(logits, targets, reduction="none")


@contextmanager
def eval_mode(model: Any) -> Iterator[None]:
    """Switch dropout off inside the block, and restore the mode at its end."""
    was_training = model.training
    model.train(False)
    try:
        yield
    finally:
        model.train(was_training)


@torch.inference_mode()
def compute_row_means(
    local: LocalModel,
    rows: Sequence[ScoringRow],
    reduce: TokenReducer,
    *,
    max_logits: int = MAX_LOGITS,
) -> tuple[Tensor, Tensor]:
    """Return (means [n] of `reduce` over each row's scored tokens, embeddings [n, width]).

    The means are float64 on the CPU. The logits of a token are those at the position before it. An
    embedding is the L2-normalized mean of the last hidden states over the question's tokens. One
    forward pass has all rows. Raises InputError for a row that is longer than the position table.
    """
    check_fits_positions(local, max(len(row.ids) for row in rows) - 1)
    pad_id = int(local.tokenizer.pad_token_id)
    # The last token predicts nothing that is scored.
    ids, mask = pad_rows([row.ids[:-1] for row in rows], pad_id, local.device, side="left")
    width = ids.shape[1]
    positions = [(i + 1) * width - row.n_scored + k for i, row in enumerate(rows)
                 for k in range(row.n_scored)]  # fmt: skip
    targets = [token for row in rows for token in row.ids[len(row.ids) - row.n_scored :]]
    hidden, values = compute_at_positions(
        local, ids, mask, positions, targets, reduce, max_logits=max_logits
    )
    means = average_by_row(values, [row.n_scored for row in rows])
    starts = [width - len(row.ids) + 1 for row in rows]
    return means, pool_question_states(hidden, [row.is_question for row in rows], starts)


def compute_at_positions(
    local: LocalModel,
    ids: Tensor,
    mask: Tensor,
    positions: Sequence[int],
    targets: Sequence[int],
    reduce: TokenReducer,
    *,
    cache: Any = None,
    max_logits: int = MAX_LOGITS,
) -> tuple[Tensor, Tensor]:
    """Return (last hidden states [n, width, hidden], `reduce` at each position [m] float32).

    ids: [n, width]. mask: [n, cached + width]. A position is an index into the flattened ids. With
    `cache`, the ids continue the cached tokens and are added to the cache.
    """
    model: Any = local.model
    selected = torch.tensor(positions, device=ids.device)
    labels = torch.tensor(targets, device=ids.device)
    step = max(1, max_logits // int(model.config.get_text_config().vocab_size))
    kept: list[Tensor] = []

    def select_states(_module: Any, _args: Any, output: Any) -> Any:
        kept.extend((output[0], output[0].flatten(0, 1)[selected]))
        return _replace_hidden(output, kept[1][None, :step])

    logits = _forward_with_hook(
        model, select_states, build_forward_arguments(model, ids, mask, cache)
    )
    values = [reduce(logits.float(), labels[:step])]
    for start in range(step, len(positions), step):
        chunk = kept[1][None, start : start + step]
        # Run the head again: the hidden state of one token is replaced by those of the chunk.
        logits = _forward_with_hook(
            model,
            lambda _module, _args, output, chunk=chunk: _replace_hidden(output, chunk),
            {"input_ids": ids[:1, :1], "use_cache": False},
        )
        values.append(reduce(logits.float(), labels[start : start + step]))
    return kept[0], torch.cat(values)


def compute_logits_at(
    model: Any, positions: Tensor, arguments: Mapping[str, object], *, inner: Any = None
) -> Tensor:
    """Return the logits [m, vocabulary] at `positions` of the flattened ids, with gradients.

    `model` may wrap `inner` for several processes.
    """

    def select_states(_module: Any, _args: Any, output: Any) -> Any:
        return _replace_hidden(output, output[0].flatten(0, 1)[positions][None])

    return _forward_with_hook(model, select_states, arguments, inner=inner)


def build_forward_arguments(
    model: Any, ids: Tensor, mask: Tensor, cache: Any = None
) -> dict[str, object]:
    """Return the arguments of one forward pass.

    They include position ids if the model takes them. Padding gets position 0.
    """
    arguments = {"input_ids": ids, "attention_mask": mask, "use_cache": cache is not None}
    if cache is not None:
        arguments["past_key_values"] = cache
    if supports_argument(model, "position_ids"):
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        arguments["position_ids"] = positions[:, mask.shape[1] - ids.shape[1] :]
    return arguments


def average_by_row(values: Tensor, counts: Sequence[int]) -> Tensor:
    """Return the means [n] of consecutive slices of `values` [sum(counts)]: float64, on the CPU."""
    n = torch.tensor(counts)
    owner = torch.repeat_interleave(torch.arange(len(counts)), n)
    sums = torch.zeros(len(counts), dtype=torch.float64)
    return sums.index_add(0, owner, values.cpu().double()) / n.clamp(min=1)


def pool_question_states(
    hidden: Tensor, questions: Sequence[Sequence[bool]], starts: Sequence[int]
) -> Tensor:
    """Return the L2-normalized means [n, width] of the hidden states of each question: float32.

    Row i of `hidden` [n, length, width] has its first token at starts[i].
    """
    weights = torch.zeros(hidden.shape[:2])
    for i, (question, start) in enumerate(zip(questions, starts, strict=True)):
        weights[i, start : start + len(question)] = torch.tensor(question).float()
    weights = (weights / weights.sum(1, keepdim=True).clamp(min=1)).to(hidden.device)
    return F.normalize(torch.bmm(weights[:, None], hidden.float())[:, 0], dim=-1)


def _forward_with_hook(
    model: Any, hook: Callable[..., Any], arguments: Mapping[str, object], *, inner: Any = None
) -> Tensor:
    """Return the logits [m, vocabulary] of a pass in which `hook` replaces the hidden states."""
    decoder = unwrap_model(model if inner is None else inner).get_decoder()
    handle = decoder.register_forward_hook(hook)
    try:
        logits: Tensor = model(**arguments).logits
    finally:
        handle.remove()
    return logits[0]


def _replace_hidden(output: Any, hidden: Tensor) -> Any:
    """Return a decoder's output with other last hidden states."""
    if isinstance(output, tuple):
        return (hidden, *output[1:])
    output.last_hidden_state = hidden
    return output
