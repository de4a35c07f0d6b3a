"""How many tokens a model may write: the number of the recipe, or `auto`.

The one idea: a model writes texts as long as those that it was trained on. So `auto` follows the
longest target of its training, in tokens of its own. A model that was not trained on the task gets
a constant. The result depends on the model alone, so every stage that uses one model uses the same
number, also after a restart.
"""

from math import ceil

from bridgekd.io.artifact_store import Artifact, Stats
from bridgekd.io.sources import read_context_length
from bridgekd.recipe import TokenLimit

MARGIN = 1.5  # a text may be longer than the longest target
MULTIPLE = 32
MIN_TOKENS = 64
UNTRAINED_TOKENS = 512
_SOURCES = ("model", "hub")  # stages of a model that no stage made


class _LongestTarget(Stats):
    max_target_tokens: int


def resolve_token_limit(limit: TokenLimit, *models: Artifact) -> int:
    """Return the maximum tokens of a text of these models; for several, the largest one.

    A model that was not trained on the task gets UNTRAINED_TOKENS, or half of what it can read.
    """
    return max(_resolve_for_model(limit, model) for model in models)


def choose_token_limit(limit: TokenLimit, longest_target: float) -> int:
    """Return the maximum tokens for a model whose longest target has `longest_target` tokens.

    >>> [choose_token_limit("auto", n) for n in (5, 100)], choose_token_limit(40, 100)
    ([64, 160], 40)
    """
    if limit != "auto":
        return limit
    return max(MIN_TOKENS, ceil(MARGIN * longest_target / MULTIPLE) * MULTIPLE)


def _resolve_for_model(limit: TokenLimit, model: Artifact) -> int:
    if limit != "auto":
        return limit
    if model.stage in _SOURCES or model.get_inputs("instructions"):
        return min(UNTRAINED_TOKENS, (read_context_length(model) or 2 * UNTRAINED_TOKENS) // 2)
    return choose_token_limit(limit, model.read_stats(_LongestTarget).max_target_tokens)
