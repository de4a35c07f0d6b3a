"""Measured speeds of local models, and the file of a store that keeps them.

A speed belongs to one model, one machine, one kind of work and what changes its speed. The file may
be deleted at any time: `plan --time` measures again.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, exp
from pathlib import Path

from pydantic import ValidationError
from scipy.special import ndtri

from bridgekd.config import RuntimeOptions, Section
from bridgekd.core.throughput import TokenCounts, WorkKind, WorkRate
from bridgekd.io.disk import translate_disk_errors, write_atomic
from bridgekd.plans.stage_work import Work
from bridgekd.records import Example

SPEED_FILE = "speeds.json"
LENGTH_LOG_SD = 0.4  # of the lengths of rationales


class SpeedKey(Section):
    """What a speed belongs to. `options` is a short text of all settings that change it."""

    model: str
    machine: str
    kind: WorkKind
    options: str


class ModelSpeed(Section):
    """The measured speed of a model: `rate` by update, decoding step or question; `reading` by
    prompt token; `load_s` to load it. `batch_size` is that of generation.
    """

    key: SpeedKey
    rate: WorkRate
    reading: WorkRate = WorkRate()
    load_s: float
    batch_size: int = 0
    tokens: TokenCounts


@dataclass(frozen=True, slots=True)
class CalibrationSample:
    """What speeds are measured with: questions and instructions of the user, and the mean tokens of
    a rationale.
    """

    examples: Sequence[Example]
    instructions: Sequence[tuple[str, str]]
    rationale_tokens: float


class _SpeedFile(Section):
    speeds: tuple[ModelSpeed, ...] = ()


def make_key(work: Work, machine: str, runtime: RuntimeOptions) -> SpeedKey:
    """Return what the speed of this work belongs to."""
    options: dict[str, object] = {"batch_size": runtime.get_batch_size(work.role)}
    if work.kind is WorkKind.TRAINING and work.train is not None:
        options = {
            "batch_size": work.train.batch_size,
            "lora": work.lora and work.lora.model_dump(mode="json"),
            "num_processes": runtime.num_processes,
            "micro_batch_tokens": runtime.micro_batch_tokens,
            "attn_implementation": runtime.attn_implementation,
        }
    if work.kind is WorkKind.SCORING:
        options["text"] = work.text
        options["difficulty"] = work.difficulty and work.difficulty.model_dump(mode="json")
    text = json.dumps(options, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return SpeedKey(model=work.base.fingerprint, machine=machine, kind=work.kind, options=digest)


def read_speeds(store: Path) -> dict[SpeedKey, ModelSpeed]:
    """Return the speeds that were measured for a store; empty if its file is not readable."""
    try:
        found = _SpeedFile.model_validate_json((store / SPEED_FILE).read_bytes())
    except (OSError, ValidationError):
        return {}
    return {speed.key: speed for speed in found.speeds}


def save_speeds(store: Path, speeds: Sequence[ModelSpeed]) -> None:
    """Add speeds to the file of a store; new ones replace those of the same key."""
    known = read_speeds(store) | {speed.key: speed for speed in speeds}
    with translate_disk_errors(store):
        store.mkdir(parents=True, exist_ok=True)
        text = _SpeedFile(speeds=tuple(known.values())).model_dump_json(indent=1)
        write_atomic(store / SPEED_FILE, text)


def estimate_seconds(work: Work, speed: ModelSpeed, *, prompt: float, target: float) -> float:
    """Return the seconds of this work with rows of so many prompt and target tokens."""
    if work.kind is WorkKind.TRAINING:
        return speed.rate.estimate(work.n_updates, work.n_rows * (prompt + target))
    if work.kind is WorkKind.SCORING:
        return speed.rate.estimate(work.n_rows, 0)
    n_batches = ceil(work.n_rows / speed.batch_size)
    batch_size = work.n_rows / n_batches
    n_steps = min(work.max_new_tokens, target * estimate_longest(batch_size))
    reading = speed.reading.estimate(0, work.n_rows * prompt)
    return reading + speed.rate.estimate(n_batches * n_steps, work.n_rows * n_steps)


def estimate_longest(n: float) -> float:
    """Return the expected length of the longest of n texts over the mean length.

    A batch is generated until its longest text ends. Lengths are taken as log-normal; the expected
    maximum of n normal numbers is Blom's approximation (1958).

    >>> [round(estimate_longest(n), 1) for n in (1, 8, 64)]
    [0.9, 1.6, 2.4]
    """
    z = float(ndtri((n - 0.375) / (n + 0.25)))
    return exp(LENGTH_LOG_SD * z - LENGTH_LOG_SD**2 / 2)
