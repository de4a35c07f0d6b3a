"""Distill the reasoning of a large teacher into a small model, within a budget.

`run(recipe)` runs a recipe, `plan(recipe)` shows what it would do and cost, and `run_pilot(recipe)`
buys a pilot. `export(run, to)` and `load_models(run)` use the models of a finished run.

The public names are those of `__all__`. Everything except the errors is imported on first use, so
that `import bridgekd` is fast and needs neither torch nor openai.
"""

from importlib import import_module
from typing import TYPE_CHECKING

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
    "BridgekdError", "DiskFullError", "ExportResult", "HardLimitError", "InputError", "Ledger",
    "LoadedModels", "OverbilledError", "PilotResult", "Plan", "Progress", "Recipe", "RunResult",
    "ServerUnavailableError", "StoppedError", "Store", "TeacherUnavailableError", "export",
    "load_models", "plan", "run", "run_pilot",
]  # fmt: skip

__version__ = "0.1.0"  # pyproject.toml reads this line

_MODULES = {
    "Recipe": "bridgekd.recipe",
    "Store": "bridgekd.io.artifact_store",
    "Ledger": "bridgekd.ledger.ledger",
    "Progress": "bridgekd.progress",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES.get(name, "bridgekd.api")), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
