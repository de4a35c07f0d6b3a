"""Local models: the only package that imports torch, transformers and peft.

Imports inside the package: load > tokenization > forward > score_inputs > {choice_logprobs, score};
forward > confidence > rationale_scores; forward > update_schedule > trainer > training_loop;
tokenization > merge.
`remote_tokenizer` prepares requests for an inference server. `embed` imports none of these.
`objectives` has one file per training objective, `orders` one per order of the rows.

The public names are imported on first use, so that a plan or a report needs no torch.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from bridgekd.errors import InputError

if TYPE_CHECKING:
    from bridgekd.lm.confidence import compute_ifd, estimate_confidence
    from bridgekd.lm.embed import embed_texts
    from bridgekd.lm.eval_loss import compute_eval_loss
    from bridgekd.lm.generate import generate_texts, sample_texts
    from bridgekd.lm.load import LocalModel, load_model, resolve_device, save_model
    from bridgekd.lm.measure_speed import (
        count_row_tokens,
        count_tokens,
        measure_decoding,
        measure_reading,
        measure_training,
    )
    from bridgekd.lm.memorization import find_memorized
    from bridgekd.lm.memory import free_device_memory
    from bridgekd.lm.merge import MergeResult, merge_adapter
    from bridgekd.lm.rationale_scores import count_prompt_tokens, count_text_tokens, score_sentences
    from bridgekd.lm.remote_tokenizer import (
        RemoteTokenizer,
        ScoringRow,
        load_remote_tokenizer,
        prepare_model_folder,
    )
    from bridgekd.lm.score import ScoredExamples, score_examples
    from bridgekd.lm.shared_vocabulary import check_alignment, check_shared_vocabulary
    from bridgekd.lm.target_logprobs import score_targets
    from bridgekd.lm.training_job import ReferenceSpec, TrainingJob
    from bridgekd.lm.training_loop import fine_tune

__all__ = [
    "LocalModel", "MergeResult", "ReferenceSpec", "RemoteTokenizer", "ScoredExamples",
    "ScoringRow", "TrainingJob", "check_alignment", "check_shared_vocabulary", "compute_eval_loss",
    "compute_ifd", "count_prompt_tokens", "count_row_tokens", "count_text_tokens", "count_tokens",
    "embed_texts",
    "estimate_confidence", "find_memorized", "fine_tune",
    "free_device_memory", "generate_texts", "load_model",
    "load_remote_tokenizer", "measure_decoding", "measure_reading", "measure_training",
    "merge_adapter", "prepare_model_folder", "resolve_device", "sample_texts", "save_model",
    "score_examples", "score_sentences", "score_targets",
]  # fmt: skip

_NAMES = {
    "confidence": "compute_ifd estimate_confidence",
    "embed": "embed_texts",
    "eval_loss": "compute_eval_loss",
    "generate": "generate_texts sample_texts",
    "load": "LocalModel load_model resolve_device save_model",
    "measure_speed": "count_row_tokens count_tokens measure_decoding measure_reading "
    "measure_training",
    "memorization": "find_memorized",
    "memory": "free_device_memory",
    "merge": "MergeResult merge_adapter",
    "rationale_scores": "count_prompt_tokens count_text_tokens score_sentences",
    "remote_tokenizer": "RemoteTokenizer ScoringRow load_remote_tokenizer prepare_model_folder",
    "score": "ScoredExamples score_examples",
    "target_logprobs": "score_targets",
    "shared_vocabulary": "check_alignment check_shared_vocabulary",
    "training_job": "ReferenceSpec TrainingJob",
    "training_loop": "fine_tune",
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}

# OpenMP threads that spin while they wait make a tiny model 50 times slower when another process
# needs a core (measured on two cores). Threads that sleep cost nothing measurable. OpenMP reads
# this variable when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.startswith("bridgekd"):
            raise
        raise InputError(
            f"Local models need {exc.name}, which is not installed. "
            "Run: pip install 'bridgekd[local]'"
        ) from exc
