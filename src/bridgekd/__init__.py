"""Budget-aware distillation of reasoning: `bridgekd.run(recipe)` and `bridgekd.plan(recipe)`;
`bridgekd.run_pilot(recipe)` pays for a pilot; `bridgekd.export(run, to)` and `bridgekd.panel(run)`
take up what a run has made.

The public names are those of `__all__`. All but the errors are imported at their first use, so
that `import bridgekd` takes no time and needs neither torch nor openai.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bridgekd.errors import (
    BridgekdError,
    DiskFullError,
    HardLimitError,
    InputError,
    OverbilledError,
    ServerUnavailableError,
    StoppedError,
    TeacherUnavailableError,
)

if TYPE_CHECKING:
    from bridgekd.api import (
        ExportResult,
        LoadedModels,
        PilotResult,
        Plan,
        RunResult,
        export,
        load_models,
        plan,
        run,
        run_pilot,
    )
    from bridgekd.io.artifact_store import Store
    from bridgekd.ledger.ledger import Ledger
    from bridgekd.progress import Progress
    from bridgekd.recipe import Recipe

__all__ = [
    "BridgekdError",
    "DiskFullError",
    "HardLimitError",
    "InputError",
    "OverbilledError",
    "ServerUnavailableError",
]
__all__ += ["StoppedError", "TeacherUnavailableError"]
__all__ += ["ExportResult", "LoadedModels", "PilotResult", "Plan", "RunResult"]
__all__ += ["export", "load_models", "plan", "run", "run_pilot"]
__all__ += ["Ledger", "Progress", "Recipe", "Store"]

__version__ = "0.1.0"  # pyproject.toml reads it here

_MODULES = {
    "Recipe": "bridgekd.recipe",
    "Store": "bridgekd.io.artifact_store",
    "Ledger": "bridgekd.ledger.ledger",
    "Progress": "bridgekd.progress",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES.get(name, "bridgekd.api")), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
