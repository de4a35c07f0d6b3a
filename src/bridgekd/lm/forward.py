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

from bridgekd.lm.batches import pad_left, positions
from bridgekd.lm.loading import LocalModel, accepted_arguments, check_room, plain_network

MAX_LOGITS = 2**26  # logits held at one time: 256 MiB in float32
Reduce = Callable[[Tensor, Tensor], Tensor]  # (logits [k, vocabulary], targets [k]) -> [k]


@dataclass(frozen=True, slots=True)
class Row:
    """A prompt and what follows it as tokens; the last `n_scored` tokens are looked at.

    `question` marks those tokens of the prompt that are the question's.
    """

    ids: tuple[int, ...]
    question: tuple[bool, ...]
    n_scored: int


def nll(logits: Tensor, targets: Tensor) -> Tensor:
    """-log p(target) in nats, [k]."""
    return F.cross_entropy(logits, targets, reduction="none")


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """The model without dropout, and afterwards as it was."""
    was_training = model.training
    model.train(False)
    try:
        yield
    finally:
        model.train(was_training)


@torch.inference_mode()
def row_means(
    local: LocalModel, rows: Sequence[Row], reduce: Reduce, *, max_logits: int = MAX_LOGITS
) -> tuple[Tensor, Tensor]:
    """(mean of `reduce` over each row's scored tokens [n] float64 on CPU, embeddings [n, width]).

    A token's logits are those at the place before it. An embedding is the mean of the last hidden
    states over the question's tokens, L2-normalised. One pass over all rows. Raises BadInput for a
    row that passes the model's table of positions.
    """
    check_room(local, max(len(row.ids) for row in rows) - 1)
    # The last token predicts nothing that is looked at.
    ids, mask = pad_left(
        [row.ids[:-1] for row in rows], int(local.tokenizer.pad_token_id), local.device
    )
    width = ids.shape[1]
    places = [(i + 1) * width - row.n_scored + k for i, row in enumerate(rows)
              for k in range(row.n_scored)]  # fmt: skip
    targets = [token for row in rows for token in row.ids[len(row.ids) - row.n_scored :]]
    hidden, values = at_places(local, ids, mask, places, targets, reduce, max_logits=max_logits)
    means = means_by_row(values, [row.n_scored for row in rows])
    starts = [width - len(row.ids) + 1 for row in rows]
    return means, question_means(hidden, [row.question for row in rows], starts)


def at_places(
    local: LocalModel,
    ids: Tensor,
    mask: Tensor,
    places: Sequence[int],
    targets: Sequence[int],
    reduce: Reduce,
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
        return _with_hidden(out, kept[1][None, :step])

    logits = _hooked(model, cut, **pass_arguments(model, ids, mask, cache))
    values = [reduce(logits.float(), labels[:step])]
    for start in range(step, len(places), step):
        chunk = kept[1][None, start : start + step]
        # Its own head again, over one token whose hidden state is put aside.
        logits = _hooked(
            model,
            lambda _module, _args, out, chunk=chunk: _with_hidden(out, chunk),
            input_ids=ids[:1, :1],
            use_cache=False,
        )
        values.append(reduce(logits.float(), labels[start : start + step]))
    return kept[0], torch.cat(values)


def logits_at(model: Any, inner: Any, places: Tensor, arguments: Mapping[str, Any]) -> Tensor:
    """Logits [m, vocabulary] at `places` alone, counted through the ids row by row; with gradients.

    `inner` is the model itself where `model` is wrapped for several processes.
    """

    def cut(_module: Any, _args: Any, out: Any) -> Any:
        return _with_hidden(out, out[0].flatten(0, 1)[places][None])

    return _hooked(model, cut, inner=inner, **arguments)


def pass_arguments(model: Any, ids: Tensor, mask: Tensor, cache: Any = None) -> dict[str, Any]:
    """What one pass is called with: positions where the family knows them, a cache where given."""
    places = positions(mask)[:, mask.shape[1] - ids.shape[1] :]
    arguments = {"input_ids": ids, "attention_mask": mask, "use_cache": cache is not None}
    if cache is not None:
        arguments["past_key_values"] = cache
    return arguments | accepted_arguments(model, position_ids=places)


def means_by_row(values: Tensor, counts: Sequence[int]) -> Tensor:
    """Means [n] float64 on CPU of consecutive stretches of `values` [sum(counts)]."""
    n = torch.tensor(counts)
    owner = torch.repeat_interleave(torch.arange(len(counts)), n)
    sums = torch.zeros(len(counts), dtype=torch.float64)
    return sums.index_add(0, owner, values.cpu().double()) / n.clamp(min=1)


def question_means(
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


def _hooked(model: Any, hook: Callable[..., Any], *, inner: Any = None, **arguments: Any) -> Tensor:
    """The logits [m, vocabulary] of one pass whose hidden states `hook` replaces by [1, m, ...]."""
    handle = (
        plain_network(inner if inner is not None else model)
        .get_decoder()
        .register_forward_hook(hook)
    )
    try:
        logits: Tensor = model(**arguments).logits
    finally:
        handle.remove()
    return logits[0]


def _with_hidden(out: Any, hidden: Tensor) -> Any:
    """A decoder's output with other last hidden states."""
    if isinstance(out, tuple):
        return (hidden, *out[1:])
    out.last_hidden_state = hidden
    return out
