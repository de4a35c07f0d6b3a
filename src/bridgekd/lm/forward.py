"""One forward pass over a batch that computes logits at selected positions only, in chunks.

A hook on the decoder keeps the hidden states at these positions. The model's own head then sees a
chunk of them at a time. So no [batch, length, vocabulary] tensor exists, the logits in memory are
bounded, and everything that a model does between hidden states and logits (scaling, soft caps)
still happens.
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

# Logits of a chunk. A loss and its gradient have up to four float32 copies of them: 256 MiB.
MAX_LOGITS = 2**24
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


def compute_row_means(
    local: LocalModel,
    rows: Sequence[ScoringRow],
    reduce: TokenReducer,
    *,
    max_logits: int = MAX_LOGITS,
) -> tuple[Tensor, Tensor]:
    """Return (means [n] of `reduce` over each row's scored tokens, embeddings [n, width]).

    The means are float64 on the CPU. An embedding is the L2-normalized mean of the last hidden
    states over the question's tokens. Raises InputError as `compute_scored_values` does.
    """
    hidden, values = compute_scored_values(local, rows, reduce, max_logits=max_logits)
    means = average_by_row(values, [row.n_scored for row in rows])
    starts = [hidden.shape[1] - len(row.ids) + 1 for row in rows]
    return means, pool_question_states(hidden, [row.is_question for row in rows], starts)


@torch.inference_mode()
def compute_scored_values(
    local: LocalModel,
    rows: Sequence[ScoringRow],
    reduce: TokenReducer,
    *,
    max_logits: int = MAX_LOGITS,
) -> tuple[Tensor, Tensor]:
    """Return (last hidden states [n, width, hidden], `reduce` of every scored token [m] float32).

    The values are in the order of the rows and their tokens. The logits of a token are those at the
    position before it. One forward pass has all rows. Raises InputError for a row that is longer
    than the position table.
    """
    check_fits_positions(local, max(len(row.ids) for row in rows) - 1)
    pad_id = int(local.tokenizer.pad_token_id)
    # The last token predicts nothing that is scored.
    ids, mask = pad_rows([row.ids[:-1] for row in rows], pad_id, local.device, side="left")
    width = ids.shape[1]
    positions = [(i + 1) * width - row.n_scored + k for i, row in enumerate(rows)
                 for k in range(row.n_scored)]  # fmt: skip
    targets = [token for row in rows for token in row.ids[len(row.ids) - row.n_scored :]]
    return compute_at_positions(local, ids, mask, positions, targets, reduce, max_logits=max_logits)


def compute_at_positions(
    local: LocalModel,
    ids: Tensor,
    mask: Tensor,
    positions: Sequence[int] | Tensor,
    targets: Sequence[int] | Tensor,
    reduce: TokenReducer,
    *,
    cache: Any = None,
    max_logits: int = MAX_LOGITS,
) -> tuple[Tensor, Tensor]:
    """Return (last hidden states [n, width, hidden], `reduce` at each position [m] float32).

    ids: [n, width]. mask: [n, cached + width]. A position is an index into the flattened ids. With
    `cache`, the ids continue the cached tokens and are added to the cache.
    """
    hidden, states, head = compute_states_at(
        local.model,
        torch.as_tensor(positions, device=ids.device),
        build_forward_arguments(local.model, ids, mask, cache),
    )
    labels = torch.as_tensor(targets, device=ids.device)
    return hidden, head.reduce_logits(states, labels, reduce, max_logits=max_logits)


@dataclass(frozen=True, slots=True)
class Head:
    """The part of a model between its last hidden states and its logits.

    `output` is one of its decoder; `ids` is a token that the model gets and ignores.
    """

    model: Any
    output: Any
    ids: Tensor

    def compute_logits(self, states: Tensor) -> Tensor:
        """Return the logits [k, vocabulary] of hidden states [k, hidden], with gradients."""
        decoder = unwrap_model(self.model).get_decoder()
        output = _replace_hidden(self.output, states[None])
        with _replace_forward(decoder, lambda *_, **__: output):
            logits: Tensor = self.model(input_ids=self.ids, use_cache=False).logits
        return logits[0]

    def reduce_logits(
        self,
        states: Tensor,
        targets: Tensor,
        reduce: TokenReducer,
        *,
        max_logits: int = MAX_LOGITS,
    ) -> Tensor:
        """Return `reduce` of the float32 logits of hidden states [m, hidden]: [m]."""
        chunks = split_tokens(len(states), count_chunk_tokens(self.model, max_logits))
        return torch.cat(
            [reduce(self.compute_logits(states[c]).float(), targets[c]) for c in chunks]
        )

    def list_parameters(self) -> list[Tensor]:
        """Return the trained weights that can change the logits of given hidden states.

        These are all that are not in the decoder, and the output embeddings, which may be.
        """
        model = unwrap_model(self.model)
        inside = {id(p) for p in model.get_decoder().parameters()}
        outside = [p for p in model.parameters() if id(p) not in inside]
        output = [*model.get_output_embeddings().parameters()]
        return [p for p in dict.fromkeys([*outside, *output]) if p.requires_grad]


def compute_states_at(
    model: Any, positions: Tensor, arguments: Mapping[str, object], *, inner: Any = None
) -> tuple[Tensor, Tensor, Head]:
    """Return (last hidden states [n, width, hidden], those at the positions [m, hidden], the head).

    A position is an index into the flattened ids. `model` may wrap `inner` for several processes.
    """
    inner = model if inner is None else inner
    kept: list[Any] = []

    def keep_states(_module: Any, _args: Any, output: Any) -> Any:
        kept.extend((output[0], output))
        return _replace_hidden(output, output[0][:1, :1])

    handle = unwrap_model(inner).get_decoder().register_forward_hook(keep_states)
    try:
        model(**arguments)
    finally:
        handle.remove()
    hidden, output = kept
    ids: Any = arguments["input_ids"]
    return hidden, hidden.flatten(0, 1)[positions], Head(inner, output, ids[:1, :1])


def count_chunk_tokens(model: Any, max_logits: int = MAX_LOGITS) -> int:
    """Return how many tokens have at most `max_logits` logits; at least 1."""
    return max(1, max_logits // int(model.config.get_text_config().vocab_size))


def split_tokens(n: int, max_tokens: int) -> list[slice]:
    """Return slices of at most `max_tokens` of n tokens; one empty slice for no token.

    >>> split_tokens(5, 3)
    [slice(0, 3, None), slice(3, 6, None)]
    """
    return [slice(start, start + max_tokens) for start in range(0, max(n, 1), max_tokens)]


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


@contextmanager
def _replace_forward(module: Any, forward: Callable[..., Any]) -> Iterator[None]:
    """Call `forward` for the module inside the block. Other libraries may have set their own."""
    own = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


def _replace_hidden(output: Any, hidden: Tensor) -> Any:
    """Return a decoder's output with other last hidden states."""
    if isinstance(output, tuple):
        return (hidden, *output[1:])
    output.last_hidden_state = hidden
    return output
