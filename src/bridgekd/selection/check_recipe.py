"""Check that a recipe has what its strategy and its difficulty measure need."""

from typing import Any

from bridgekd.errors import InputError
from bridgekd.grading.answer_type import AnswerType
from bridgekd.recipe import Recipe
from bridgekd.selection.difficulty import MEASURES
from bridgekd.selection.measure import DifficultyMeasure
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
