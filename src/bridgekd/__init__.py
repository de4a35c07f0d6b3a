"""Budget-aware distillation of reasoning: `bridgekd.run(recipe)` and `bridgekd.plan(recipe)`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bridgekd.api import Outcome, Plan, plan, run

__all__ = ["Outcome", "Plan", "plan", "run"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from bridgekd import api

    return getattr(api, name)
