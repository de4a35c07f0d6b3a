"""One pass of a model over a batch, with logits at a few places alone.

The one idea: the decoder's hidden states are cut down to the places that matter before the model's
own head sees them. So no [batch, length, vocabulary] tensor ever exists, and whatever a model does
between hidden states and logits (scaling, soft caps) happens as always.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bridgekd.lm.collate import compute_position_ids, pad_left
from bridgekd.lm.load import (
    LocalModel,
    check_fits_positions,
    filter_forward_arguments,
    unwrap_model,
)

MAX_LOGITS = 2**26  # logits held at one time: 256 MiB in float32
TokenReducer = Callable[[Tensor, Tensor], Tensor]  # (logits [k, vocabulary], targets [k]) -> [k]


@dataclass(frozen=True, slots=True)
class ScoringRow:
    """A prompt and what follows it as tokens; the last `n_scored` tokens are looked at.

    `question` marks those tokens of the prompt that are the question's.
    """

    ids: tuple[int, ...]
    is_question: tuple[bool, ...]
    n_scored: int


def token_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """-log p(target) in nats, [k]."""
    return F.cross_entropy(logits, targets, reduction="none")


@contextmanager
def eval_mode(model: Any) -> Iterator[None]:
    """The model without dropout, and afterwards as it was."""
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
    """(mean of `reduce` over each row's scored tokens [n] float64 on CPU, embeddings [n, width]).

    A token's logits are those at the place before it. An embedding is the mean of the last hidden
    states over the question's tokens, L2-normalised. One pass over all rows. Raises InputError for
    a row that passes the model's table of positions.
    """
    check_fits_positions(local, max(len(row.ids) for row in rows) - 1)
    # The last token predicts nothing that is looked at.
    ids, mask = pad_left(
        [row.ids[:-1] for row in rows], int(local.tokenizer.pad_token_id), local.device
    )
    width = ids.shape[1]
    places = [(i + 1) * width - row.n_scored + k for i, row in enumerate(rows)
              for k in range(row.n_scored)]  # fmt: skip
    targets = [token for row in rows for token in row.ids[len(row.ids) - row.n_scored :]]
    hidden, values = compute_at_positions(
        local, ids, mask, places, targets, reduce, max_logits=max_logits
    )
    means = average_by_row(values, [row.n_scored for row in rows])
    starts = [width - len(row.ids) + 1 for row in rows]
    return means, pool_question_states(hidden, [row.is_question for row in rows], starts)


def compute_at_positions(
    local: LocalModel,
    ids: Tensor,
    mask: Tensor,
    places: Sequence[int],
    targets: Sequence[int],
    reduce: TokenReducer,
    *,
    cache: Any = None,
    max_logits: int = MAX_LOGITS,
) -> tuple[Tensor, Tensor]:
    """(last hidden states [n, width, hidden], `reduce` at each place [m] float32).

    ids [n, width]; mask [n, cached + width]. A place counts through ids row by row; its logits are
    what the model gives there. With `cache` the ids continue what is cached, and it grows.
    """
    model: Any = local.model
    wanted = torch.tensor(places, device=ids.device)
    labels = torch.tensor(targets, device=ids.device)
    step = max(1, max_logits // int(model.config.get_text_config().vocab_size))
    kept: list[Tensor] = []

    def cut(_module: Any, _args: Any, out: Any) -> Any:
        kept.append(out[0])
        kept.append(out[0].flatten(0, 1)[wanted])
        return _replace_hidden(out, kept[1][None, :step])

    logits = _forward_with_hook(model, cut, **build_forward_arguments(model, ids, mask, cache))
    values = [reduce(logits.float(), labels[:step])]
    for start in range(step, len(places), step):
        chunk = kept[1][None, start : start + step]
        # Its own head again, over one token whose hidden state is put aside.
        logits = _forward_with_hook(
            model,
            lambda _module, _args, out, chunk=chunk: _replace_hidden(out, chunk),
            input_ids=ids[:1, :1],
            use_cache=False,
        )
        values.append(reduce(logits.float(), labels[start : start + step]))
    return kept[0], torch.cat(values)


def compute_logits_at(
    model: Any, inner: Any, places: Tensor, arguments: Mapping[str, Any]
) -> Tensor:
    """Logits [m, vocabulary] at `places` alone, counted through the ids row by row; with gradients.

    `inner` is the model itself where `model` is wrapped for several processes.
    """

    def cut(_module: Any, _args: Any, out: Any) -> Any:
        return _replace_hidden(out, out[0].flatten(0, 1)[places][None])

    return _forward_with_hook(model, cut, inner=inner, **arguments)


def build_forward_arguments(
    model: Any, ids: Tensor, mask: Tensor, cache: Any = None
) -> dict[str, Any]:
    """What one pass is called with: positions where the family knows them, a cache where given."""
    places = compute_position_ids(mask)[:, mask.shape[1] - ids.shape[1] :]
    arguments = {"input_ids": ids, "attention_mask": mask, "use_cache": cache is not None}
    if cache is not None:
        arguments["past_key_values"] = cache
    return arguments | filter_forward_arguments(model, position_ids=places)


def average_by_row(values: Tensor, counts: Sequence[int]) -> Tensor:
    """Means [n] float64 on CPU of consecutive stretches of `values` [sum(counts)]."""
    n = torch.tensor(counts)
    owner = torch.repeat_interleave(torch.arange(len(counts)), n)
    sums = torch.zeros(len(counts), dtype=torch.float64)
    return sums.index_add(0, owner, values.cpu().double()) / n.clamp(min=1)


def pool_question_states(
    hidden: Tensor, questions: Sequence[Sequence[bool]], starts: Sequence[int]
) -> Tensor:
    """Means [n, width] of the hidden states where each question is marked, L2-normalised; float32.

    Row i of `hidden` [n, length, width] holds its first token at starts[i].
    """
    weights = torch.zeros(hidden.shape[:2])
    for i, (question, start) in enumerate(zip(questions, starts, strict=True)):
        weights[i, start : start + len(question)] = torch.tensor(question).float()
    weights = (weights / weights.sum(1, keepdim=True).clamp(min=1)).to(hidden.device)
    return F.normalize(torch.bmm(weights[:, None], hidden.float())[:, 0], dim=-1)


def _forward_with_hook(
    model: Any, hook: Callable[..., Any], *, inner: Any = None, **arguments: Any
) -> Tensor:
    """The logits [m, vocabulary] of one pass whose hidden states `hook` replaces by [1, m, ...]."""
    handle = (
        unwrap_model(inner if inner is not None else model)
        .get_decoder()
        .register_forward_hook(hook)
    )
    try:
        logits: Tensor = model(**arguments).logits
    finally:
        handle.remove()
    return logits[0]


def _replace_hidden(out: Any, hidden: Tensor) -> Any:
    """A decoder's output with other last hidden states."""
    if isinstance(out, tuple):
        return (hidden, *out[1:])
    out.last_hidden_state = hidden
    return out
