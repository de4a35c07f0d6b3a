"""Check that a recipe has what its strategy and its difficulty measure need."""

from typing import Any

from bridgekd.errors import InputError
from bridgekd.grading.answer_type import AnswerType
from bridgekd.recipe import Recipe
from bridgekd.selection.difficulty import MEASURES
from bridgekd.selection.measure import DifficultyMeasure
from bridgekd.selection.mixture import Mixture
from bridgekd.selection.quotas import QuotaGroups
from bridgekd.selection.strategies import STRATEGIES
from bridgekd.selection.strategy import Strategy


def check_strategy(
    recipe: Recipe, strategy: Strategy[Any], quotas: QuotaGroups | None = None
) -> None:
    """Raise InputError if the strategy or its quotas need embeddings and the recipe has none."""
    has_embeddings = (
        recipe.assistant.scoring_backend != "server" or recipe.select.embedding_model is not None
    )
    if quotas == "cluster" and not has_embeddings:
        raise InputError(
            "select.quotas: cluster needs embeddings, which assistant.scoring_backend: server does "
            "not provide. Set select.embedding_model to a sentence-transformers model, or "
            "select.quotas: domain.",
            key="select.quotas",
        )
    if strategy.needs_embeddings and not has_embeddings:
        usable = _join_names([s.name for s in STRATEGIES if not s.needs_embeddings])
        raise InputError(
            f"The strategy {strategy.name} needs embeddings, which assistant.scoring_backend: "
            "server does not provide. Set select.embedding_model to a sentence-transformers model, "
            f"or use the strategy {usable}.",
            key="assistant.scoring_backend",
        )


def check_per_dollar(recipe: Recipe, strategy: Strategy[Any]) -> None:
    """Raise InputError if there is no gain to divide, or no purchase that tells costs."""
    if not strategy.uses_costs:
        usable = _join_names([s.name for s in STRATEGIES if s.uses_costs])
        raise InputError(
            f"select.per_dollar divides the gain of each question by its cost, and the strategy "
            f"{strategy.name} has no gain. Use the strategy {usable}, or remove the key.",
            key="select.per_dollar",
        )
    if recipe.select.n_rounds == 1:
        raise InputError(
            "select.per_dollar forecasts costs from earlier rounds, and select.n_rounds is 1. Set "
            "it to 2 or more, or remove select.per_dollar.",
            key="select.per_dollar",
        )


def check_mixture(
    recipe: Recipe, mixture: Mixture[Any], options: Any, key: str = "select.mixture"
) -> None:
    """Raise InputError if the recipe has no groups to mix, or not what the mixture needs."""
    if key == "student.mixture" and recipe.data.columns.domain is None:
        raise InputError(
            f"{key}: {mixture.name} divides the rows among domains. Set data.columns.domain.",
            key=key,
        )
    if key == "select.mixture" and recipe.select.quotas is None:
        raise InputError(
            f"{key}: {mixture.name} divides the picks among groups, and select.quotas "
            "names none. Set select.quotas to domain or cluster.",
            key=key,
        )
    if recipe.data.unlabeled and (mixture.needs_losses or mixture.count_samples(options)):
        raise InputError(
            f"{key}: {mixture.name} needs gold answers, and data.unlabeled: true says "
            "that some are missing. Set it to as_is, even or toward_even.",
            key=key,
        )


def check_measure(recipe: Recipe, measure: DifficultyMeasure[Any], answer_type: AnswerType) -> None:
    """Raise InputError if the measure needs gold answers, a warm-up or token probabilities that
    the recipe does not have.
    """
    subject = f"The difficulty measure {measure.name}"
    if measure.needs_gold and recipe.data.unlabeled:
        usable = _join_names([m.name for m in MEASURES if not m.needs_gold])
        raise InputError(
            f"{subject} needs gold answers, and data.unlabeled: true says that some are missing. "
            f"Set select.difficulty to {usable}.",
            key="data.unlabeled",
        )
    if measure.needs_committee and str(recipe.assistant.warm_up_size) in ("0", "0%"):
        raise InputError(
            f"{subject} compares assistants that were warmed up on different questions, and "
            "assistant.warm_up_size is 0. Raise it, or use another measure.",
            key="assistant.warm_up_size",
        )
    has_choices = answer_type.has_choices
    from_server = recipe.assistant.scoring_backend == "server"
    if measure.score_reduction and from_server and recipe.data.columns.domain is None:
        raise InputError(
            f"{subject} needs domains, or the embeddings that assistant.scoring_backend: server "
            "does not provide. Set data.columns.domain, or assistant.scoring_backend: "
            "transformers.",
            key="assistant.scoring_backend",
        )
    if from_server and measure.needs_token_probabilities(has_choices):
        usable = _join_names(
            [m.name for m in MEASURES if not m.needs_token_probabilities(has_choices)]
        )
        raise InputError(
            f"{subject} needs the probability of every token for {answer_type.settings.name} "
            "answers, which no server returns. Set assistant.scoring_backend: transformers, or "
            f"select.difficulty to {usable}.",
            key="assistant.scoring_backend",
        )


def _join_names(names: list[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last
