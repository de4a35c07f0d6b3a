"""Local models: the only package that imports torch, transformers and peft.

loading -> encode -> forward -> questions -> {options, scoring}; forward -> judging; caches ->
decoding -> generating -> scoring; forward -> updates -> trainer -> finetune -> worker; encode ->
templates -> merging; elsewhere puts together what a server is asked; embedding is apart.
`objectives` has one file per training objective.
The public names are imported when they are first asked for, so that a plan or a report runs where
no torch is installed.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from bridgekd.errors import BadInput

if TYPE_CHECKING:
    from bridgekd.lm.elsewhere import Options, Row, Tokens, read_tokens, served_folder
    from bridgekd.lm.embedding import embed
    from bridgekd.lm.finetune import fine_tune
    from bridgekd.lm.generating import generate, sample
    from bridgekd.lm.held_out import mean_loss
    from bridgekd.lm.judging import confidence
    from bridgekd.lm.loading import LocalModel, load, resolve_device, save
    from bridgekd.lm.measure_speed import (
        count_row_tokens,
        count_tokens,
        measure_decoding,
        measure_reading,
        measure_training,
    )
    from bridgekd.lm.memory import free_device_memory
    from bridgekd.lm.merging import Merged, merge
    from bridgekd.lm.reference_model import ReferenceSpec
    from bridgekd.lm.scoring import Scored, score
    from bridgekd.lm.training_log import TrainingLog

__all__ = [
    "LocalModel", "Merged", "Options", "ReferenceSpec", "Row", "Scored", "Tokens", "TrainingLog",
    "confidence", "count_row_tokens", "count_tokens", "embed", "fine_tune", "free_device_memory",
    "generate", "load", "mean_loss", "measure_decoding", "measure_reading", "measure_training",
    "merge", "read_tokens", "resolve_device", "sample", "save", "score", "served_folder",
]  # fmt: skip

_MODULES = {
    "elsewhere": ("Options", "Row", "Tokens", "read_tokens", "served_folder"),
    "embedding": ("embed",),
    "finetune": ("fine_tune",),
    "generating": ("generate", "sample"),
    "held_out": ("mean_loss",),
    "judging": ("confidence",),
    "loading": ("LocalModel", "load", "resolve_device", "save"),
    "measure_speed": (
        "count_row_tokens",
        "count_tokens",
        "measure_decoding",
        "measure_reading",
        "measure_training",
    ),
    "memory": ("free_device_memory",),
    "merging": ("Merged", "merge"),
    "reference_model": ("ReferenceSpec",),
    "scoring": ("Scored", "score"),
    "training_log": ("TrainingLog",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

# OpenMP threads that spin while they wait make a tiny model 50 times slower as soon as another
# process wants a core (measured on two cores); sleeping ones cost nothing measurable. Read when
# torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.startswith("bridgekd"):
            raise
        raise BadInput(
            f"local models need {exc.name}, which is not installed; pip install 'bridgekd[local]'"
        ) from exc
