"""How likely each option of a question is, over one shared prompt.

The one idea: the prompt's keys and values are computed once, and all of its options continue from
copies of them. A model that does not give the numbers of the plain computation that way is scored
option by option in full; that is tried on two questions, not looked up in a list of families.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache

from bridgekd.lm.collate import pad_left, pad_right
from bridgekd.lm.forward import (
    ScoringRow,
    average_by_row,
    build_forward_arguments,
    compute_at_positions,
    compute_row_means,
    pool_question_states,
    token_nll,
)
from bridgekd.lm.load import (
    LocalModel,
    check_fits_positions,
    filter_forward_arguments,
    unwrap_model,
)
from bridgekd.lm.memory import run_scoring
from bridgekd.lm.score_inputs import (
    HasTokenizer,
    TokenizedPrompt,
    format_choices,
    tokenize_answer_prompts,
    tokenize_answers,
)
from bridgekd.records import Example

log = logging.getLogger(__name__)
LOGPROB_TOLERANCE = {torch.float32: 1e-4}  # nats a token; other dtypes round more coarsely
LOW_PRECISION_TOLERANCE = 0.1
OnBatchScored = Callable[[list[int], list[NDArray[np.float64]], Tensor], None]


@dataclass(frozen=True, slots=True)
class ChoiceSet:
    """A question and its options' targets; of each the last n tokens are the option's own."""

    prompt: TokenizedPrompt
    targets: tuple[tuple[int, ...], ...]
    n_choice_tokens: tuple[int, ...]

    def rows(self) -> list[ScoringRow]:
        """Prompt and option in full, one row an option."""
        return [
            self.prompt.append(target, n)
            for target, n in zip(self.targets, self.n_choice_tokens, strict=True)
        ]

    def prefix(self) -> list[int]:
        """The tokens that every option has before its own, without the last of them."""
        return [*self.prompt.ids, *self.targets[0][: -self.n_choice_tokens[0]]][:-1]

    def continuations(self) -> list[list[int]]:
        """What each option adds to the prefix: one token that all share, then its own."""
        return [[*self.prompt.ids, *target][-n - 1 :] for target, n in zip(
            self.targets, self.n_choice_tokens, strict=True)]  # fmt: skip


def score_batches(
    local: LocalModel, examples: Sequence[Example], batch_size: int | None, told: OnBatchScored
) -> None:
    """Calls told(row numbers, mean log-likelihoods [C] of each row's options, embeddings [k, ...])
    batch by batch, until every example with options has been told.

    A mean is over the option's own tokens as shown, `(B) text`, in nats; the mark before does not
    count.
    """
    questions = tokenize_choices(local, examples)
    shared = can_share_prefix(local, questions)
    costs = [max(map(len, (row.ids for row in q.rows()))) * len(q.targets) for q in questions]

    def run(batch: list[int]) -> None:
        picked = [questions[i] for i in batch]
        values, embeddings = (score_over_prefix if shared else score_full)(local, picked)
        told(batch, values, embeddings)

    run_scoring(local, costs, batch_size, run)


def tokenize_choices(local: HasTokenizer, examples: Sequence[Example]) -> list[ChoiceSet]:
    """Every example's prompt and options as tokens, in order."""
    shown = [format_choices(example) for example in examples]
    flat = iter(tokenize_answers(local, [option for options in shown for option in options]))
    read = []
    for asked, options in zip(tokenize_answer_prompts(local, examples), shown, strict=True):
        own = [next(flat) for _ in options]
        read.append(ChoiceSet(asked, tuple(tuple(ids) for ids, _ in own), tuple(n for _, n in own)))
    return read


def can_share_prefix(local: LocalModel, questions: Sequence[ChoiceSet]) -> bool:
    """Whether options over a shared prefix get the numbers they get in full, tried on the shortest
    and the longest prompt side by side, so that padding and windows of attention are tried too."""
    if not questions or not filter_forward_arguments(local.model, past_key_values=None):
        return False
    if any(len(q.targets[k]) == n for q in questions for k, n in enumerate(q.n_choice_tokens)):
        return False  # no token of the mark is common to all: only odd tokenizers
    ends = [choose(questions, key=lambda q: len(q.prompt.ids)) for choose in (min, max)]
    shared, _ = score_over_prefix(local, ends)
    full = [score_full(local, [question])[0][0] for question in ends]
    dtype = next(local.model.parameters()).dtype
    apart = max(float(np.abs(a - b).max()) for a, b in zip(shared, full, strict=True))
    if apart <= LOGPROB_TOLERANCE.get(dtype, LOW_PRECISION_TOLERANCE):
        return True
    log.warning(
        "%s does not continue a shared prompt exactly (%.1e nats a token apart); "
        "options are scored in full",
        local.model.config.model_type,
        apart,
    )
    return False


def score_full(
    local: LocalModel, questions: Sequence[ChoiceSet]
) -> tuple[list[NDArray[np.float64]], Tensor]:
    """(mean log-likelihoods [C] of each question's options, embeddings [n, width]), each option
    passed with its whole prompt."""
    values, embeddings = compute_row_means(
        local, [row for q in questions for row in q.rows()], token_nll
    )
    counts = [len(q.targets) for q in questions]
    firsts = np.cumsum([0, *counts[:-1]])
    return _by_question(-values, counts), embeddings[torch.from_numpy(firsts).to(embeddings.device)]


@torch.inference_mode()
def score_over_prefix(
    local: LocalModel, questions: Sequence[ChoiceSet]
) -> tuple[list[NDArray[np.float64]], Tensor]:
    """The numbers of `in_full`, by one pass over the prompts and one over all options."""
    model: Any = local.model
    pad_id = int(local.tokenizer.pad_token_id)
    check_fits_positions(local, max(len(row.ids) for q in questions for row in q.rows()) - 1)
    prefixes = [q.prefix() for q in questions]
    ids, mask = pad_left(prefixes, pad_id, local.device)
    cache: Any = DynamicCache(config=model.config)
    decoder = unwrap_model(model).get_decoder()
    hidden = decoder(**build_forward_arguments(model, ids, mask, cache))[0]
    width = ids.shape[1]
    embeddings = pool_question_states(
        hidden, [q.prompt.is_question for q in questions], [width - len(p) for p in prefixes]
    )
    owner = torch.tensor([i for i, q in enumerate(questions) for _ in q.targets], device=ids.device)
    cache.reorder_cache(owner)
    behind = [tokens for q in questions for tokens in q.continuations()]
    n_own = [n for q in questions for n in q.n_choice_tokens]
    more, more_mask = pad_right([tokens[:-1] for tokens in behind], pad_id, local.device)
    length = more.shape[1]
    places = [i * length + k for i, n in enumerate(n_own) for k in range(n)]
    wanted = [token for tokens in behind for token in tokens[1:]]
    whole_mask = torch.cat([mask[owner], more_mask], dim=1)
    _, losses = compute_at_positions(
        local, more, whole_mask, places, wanted, token_nll, cache=cache
    )
    counts = [len(q.targets) for q in questions]
    return _by_question(-average_by_row(losses, n_own), counts), embeddings


def _by_question(values: Tensor, counts: Sequence[int]) -> list[NDArray[np.float64]]:
    return np.split(values.numpy(), np.cumsum(counts)[:-1])
