"""Budget-aware distillation of reasoning: `bridgekd.run(recipe)` and `bridgekd.plan(recipe)`;
`bridgekd.run_pilot(recipe)` pays for a pilot; `bridgekd.export(run, to)` and `bridgekd.panel(run)`
take up what a run has made.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bridgekd.api import (
        Exported,
        Outcome,
        Panel,
        PilotResult,
        Plan,
        export,
        panel,
        plan,
        run,
        run_pilot,
    )

__all__ = ["Exported", "Outcome", "Panel", "PilotResult", "Plan", "export", "panel"]
__all__ += ["plan", "run", "run_pilot"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from bridgekd import api

    return getattr(api, name)
