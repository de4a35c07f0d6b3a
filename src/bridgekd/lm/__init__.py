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

from bridgekd.errors import InputError

if TYPE_CHECKING:
    from bridgekd.lm.elsewhere import (
        ChoiceSet,
        RemoteTokenizer,
        ScoringRow,
        load_remote_tokenizer,
        prepare_model_folder,
    )
    from bridgekd.lm.embedding import embed_texts
    from bridgekd.lm.finetune import fine_tune
    from bridgekd.lm.generating import generate_texts, sample_texts
    from bridgekd.lm.held_out import compute_eval_loss
    from bridgekd.lm.judging import estimate_confidence
    from bridgekd.lm.loading import LocalModel, load_model, resolve_device, save_model
    from bridgekd.lm.measure_speed import (
        count_row_tokens,
        count_tokens,
        measure_decoding,
        measure_reading,
        measure_training,
    )
    from bridgekd.lm.memory import free_device_memory
    from bridgekd.lm.merging import MergeResult, merge_adapter
    from bridgekd.lm.reference_model import ReferenceSpec
    from bridgekd.lm.scoring import ScoredExamples, score_examples
    from bridgekd.lm.training_job import TrainingJob
    from bridgekd.lm.training_log import TrainingLog

__all__ = [
    "ChoiceSet",
    "LocalModel",
    "MergeResult",
    "ReferenceSpec",
    "RemoteTokenizer",
    "ScoredExamples",
    "ScoringRow",
    "TrainingJob",
    "TrainingLog",
    "compute_eval_loss",
    "count_row_tokens",
    "count_tokens",
    "embed_texts",
    "estimate_confidence",
    "fine_tune",
    "free_device_memory",
    "generate_texts",
    "load_model",
    "load_remote_tokenizer",
    "measure_decoding",
    "measure_reading",
    "measure_training",
    "merge_adapter",
    "prepare_model_folder",
    "resolve_device",
    "sample_texts",
    "save_model",
    "score_examples",
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
    "training_job": ("TrainingJob",),
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
        raise InputError(
            f"local models need {exc.name}, which is not installed; pip install 'bridgekd[local]'"
        ) from exc
