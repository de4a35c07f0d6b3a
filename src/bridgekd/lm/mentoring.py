"""A mentor beside a training: the student also follows the mentor's distribution over next tokens.

The one idea: both models read the same token ids, so this works only where their vocabularies are
the same; where they are not, the training goes on by its own loss and its log says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bridgekd.lm.forward import logits_at
from bridgekd.lm.loading import LocalModel, load
from bridgekd.lm.losses import weighted_kl


@dataclass(frozen=True, slots=True)
class Mentor:
    """A folder or Hub id; L = (1 - share) * NLL + share * KL at `temperature`."""

    model: str | Path
    revision: str | None
    share: float
    temperature: float


@dataclass(frozen=True, slots=True)
class Guide:
    """A mentor that is loaded, and how many tokens both vocabularies have."""

    local: LocalModel
    share: float
    temperature: float
    n_tokens: int

    def blended(
        self,
        nll: Tensor,
        logits: Tensor,
        weights: Tensor,
        *,
        places: Tensor,
        arguments: Mapping[str, Any],
    ) -> Tensor:
        """`nll`, the sum over a micro-batch, with the mentor's part; `logits` [m, vocabulary] and
        `weights` [m] at `places`, where `arguments` is what the student's pass was called with.
        """
        with torch.no_grad():
            model = self.local.model
            reference = logits_at(model, model, places, arguments)[..., : self.n_tokens]
        kl = weighted_kl(
            logits[..., : self.n_tokens], reference, weights, temperature=self.temperature
        )
        return (1 - self.share) * nll + self.share * kl


def guide(mentor: Mentor | None, student: LocalModel) -> Guide | None:
    """The mentor on the student's device; None without one, or where vocabularies differ."""
    if mentor is None:
        return None
    local = load(mentor.model, device=student.device, revision=mentor.revision)
    if local.tokenizer.get_vocab() != student.tokenizer.get_vocab():
        return None
    return Guide(local, mentor.share, mentor.temperature, len(student.tokenizer))
