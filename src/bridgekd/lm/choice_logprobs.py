"""The log-likelihood of each choice of a question, with one shared prompt.

The keys and values of the prompt are computed once, and all choices continue from copies of them. A
model for which this changes the numbers is scored with the full prompt for each choice. A probe of
two questions decides this, not a list of model families.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache, PreTrainedTokenizerBase

from bridgekd.lm.collate import pad_rows
from bridgekd.lm.forward import (
    ScoringRow,
    average_by_row,
    build_forward_arguments,
    compute_at_positions,
    compute_row_means,
    pool_question_states,
    token_nll,
)
from bridgekd.lm.load import LocalModel, check_fits_positions, supports_argument, unwrap_model
from bridgekd.lm.memory import run_scoring
from bridgekd.lm.score_inputs import (
    TokenizedPrompt,
    format_choices,
    tokenize_answer_prompts,
    tokenize_answers,
)
from bridgekd.records import Example

log = logging.getLogger(__name__)
LOGPROB_TOLERANCE = {torch.float32: 1e-4}  # nats per token
LOW_PRECISION_TOLERANCE = 0.1  # other dtypes round more coarsely
OnBatchScored = Callable[[list[int], list[NDArray[np.float64]], Tensor], None]


@dataclass(frozen=True, slots=True)
class ChoiceSet:
    """A question and the targets of its choices.

    The last n_choice_tokens[c] tokens of target c belong to the choice itself.
    """

    prompt: TokenizedPrompt
    targets: tuple[tuple[int, ...], ...]
    n_choice_tokens: tuple[int, ...]

    def build_rows(self) -> list[ScoringRow]:
        """Return prompt and target in full, one row per choice."""
        return [
            self.prompt.append(target, n)
            for target, n in zip(self.targets, self.n_choice_tokens, strict=True)
        ]

    def build_prefix(self) -> list[int]:
        """Return the tokens before the choices, which are the same for all, without the last."""
        return [*self.prompt.ids, *self.targets[0][: -self.n_choice_tokens[0]]][:-1]

    def build_continuations(self) -> list[tuple[int, ...]]:
        """Return what follows the prefix: one token that all choices share, then the choice."""
        return [row.ids[-row.n_scored - 1 :] for row in self.build_rows()]


def score_batches(
    local: LocalModel, examples: Sequence[Example], batch_size: int | None, on_batch: OnBatchScored
) -> None:
    """Call on_batch(row numbers, log-likelihoods [C] per row, embeddings [k, width]) per batch.

    A log-likelihood is the mean in nats over the choice's own tokens as the prompt shows it,
    `(B) text`. The tokens of `Answer:` do not count.
    """
    questions = tokenize_choices(local.tokenizer, examples)
    score = score_over_prefix if can_share_prefix(local, questions) else score_full
    costs = [max(len(row.ids) for row in q.build_rows()) * len(q.targets) for q in questions]

    def run(batch: list[int]) -> None:
        on_batch(batch, *score(local, [questions[i] for i in batch]))

    run_scoring(local, costs, batch_size, run)


def tokenize_choices(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]
) -> list[ChoiceSet]:
    """Return the prompt and the choices of every example as tokens, in order."""
    texts = [format_choices(example) for example in examples]
    targets = iter(tokenize_answers(tokenizer, [text for choices in texts for text in choices]))
    questions = []
    for prompt, choices in zip(tokenize_answer_prompts(tokenizer, examples), texts, strict=True):
        own = [next(targets) for _ in choices]
        questions.append(
            ChoiceSet(prompt, tuple(tuple(ids) for ids, _ in own), tuple(n for _, n in own))
        )
    return questions


def can_share_prefix(local: LocalModel, questions: Sequence[ChoiceSet]) -> bool:
    """Return whether choices after a shared prompt have the same numbers as with a full prompt.

    The probe is the shortest and the longest prompt in one batch, so it covers padding and windows
    of attention.
    """
    if not questions or not supports_argument(local.model, "past_key_values"):
        return False
    if any(len(q.targets[c]) == n for q in questions for c, n in enumerate(q.n_choice_tokens)):
        return False  # the choices share no token of `Answer:`; some tokenizers do this
    probe = [choose(questions, key=lambda q: len(q.prompt.ids)) for choose in (min, max)]
    shared, _ = score_over_prefix(local, probe)
    full = [score_full(local, [question])[0][0] for question in probe]
    difference = max(float(np.abs(a - b).max()) for a, b in zip(shared, full, strict=True))
    dtype = next(local.model.parameters()).dtype
    if difference <= LOGPROB_TOLERANCE.get(dtype, LOW_PRECISION_TOLERANCE):
        return True
    log.warning(
        "%s does not continue a shared prompt exactly (difference: %.1e nats per token). Every "
        "choice is scored with its full prompt.",
        local.model.config.model_type,
        difference,
    )
    return False


def score_full(
    local: LocalModel, questions: Sequence[ChoiceSet]
) -> tuple[list[NDArray[np.float64]], Tensor]:
    """Return (log-likelihoods [C] per question, embeddings [n, width]).

    The forward pass has the full prompt for each choice.
    """
    values, embeddings = compute_row_means(
        local, [row for q in questions for row in q.build_rows()], token_nll
    )
    first_rows = np.cumsum([0, *(len(q.targets) for q in questions[:-1])])
    embeddings = embeddings[torch.from_numpy(first_rows).to(embeddings.device)]
    return _split_by_question(-values, questions), embeddings


@torch.inference_mode()
def score_over_prefix(
    local: LocalModel, questions: Sequence[ChoiceSet]
) -> tuple[list[NDArray[np.float64]], Tensor]:
    """Return what `score_full` returns, with one pass over the prompts and one over all choices."""
    model: Any = local.model
    pad_id = int(local.tokenizer.pad_token_id)
    check_fits_positions(local, max(len(r.ids) for q in questions for r in q.build_rows()) - 1)
    prefixes = [q.build_prefix() for q in questions]
    ids, mask = pad_rows(prefixes, pad_id, local.device, side="left")
    cache: Any = DynamicCache(config=model.config)
    decoder = unwrap_model(model).get_decoder()
    hidden = decoder(**build_forward_arguments(model, ids, mask, cache))[0]
    starts = [ids.shape[1] - len(prefix) for prefix in prefixes]
    embeddings = pool_question_states(hidden, [q.prompt.is_question for q in questions], starts)
    owner = torch.tensor([i for i, q in enumerate(questions) for _ in q.targets], device=ids.device)
    cache.reorder_cache(owner)
    continuations = [tokens for q in questions for tokens in q.build_continuations()]
    n_scored = [len(tokens) - 1 for tokens in continuations]
    choice_ids, choice_mask = pad_rows(
        [tokens[:-1] for tokens in continuations], pad_id, local.device, side="right"
    )
    width = choice_ids.shape[1]
    positions = [i * width + k for i, n in enumerate(n_scored) for k in range(n)]
    targets = [token for tokens in continuations for token in tokens[1:]]
    full_mask = torch.cat([mask[owner], choice_mask], dim=1)
    _, losses = compute_at_positions(
        local, choice_ids, full_mask, positions, targets, token_nll, cache=cache
    )
    return _split_by_question(-average_by_row(losses, n_scored), questions), embeddings


def _split_by_question(values: Tensor, questions: Sequence[ChoiceSet]) -> list[NDArray[np.float64]]:
    return np.split(values.numpy(), np.cumsum([len(q.targets) for q in questions])[:-1])
