"""Measure the speeds of local models, save them in the store, and estimate seconds from them.

A speed belongs to one model, one machine, one type of work and the settings that change it. Its
file may be deleted at any time: `plan --time` measures again.
"""

import os
import platform
import time
from collections.abc import Sequence
from math import ceil, exp
from pathlib import Path

from pydantic import ValidationError
from scipy.special import ndtri

from bridgekd import lm
from bridgekd.io.disk import make_private_folder, translate_disk_errors, write_atomic
from bridgekd.io.sources import get_model_and_revision
from bridgekd.plans.stage_work import Workload
from bridgekd.prompts import (
    build_answer_target,
    build_cot_target,
    render_answer_prompt,
    render_cot_prompt,
)
from bridgekd.recipe import FrozenModel
from bridgekd.records import Example, Message, TargetSpan, TrainingSequence
from bridgekd.stages.run_context import RunContext
from bridgekd.throughput import WorkKind, WorkRate

SPEED_FILE = "speeds.json"
LENGTH_LOG_SD = 0.4  # of the lengths of rationales
N_SAMPLES = 64  # questions for one measurement
_MIN_STEPS = 32
_ANSWER_TOKENS = 4.0  # the mark before an answer, and the end token


class SpeedKey(FrozenModel):
    """The identity of a speed; `options` lists the settings that change it."""

    model: str
    machine: str
    kind: WorkKind
    options: str


class ModelSpeed(FrozenModel):
    """A measured speed of one model.

    rate: of updates or decoding steps. reading: of prompt tokens. batch_size: of generation.
    load_s: seconds to load the model. A question has `tokens_per_character`, and the prompt adds
    `prompt_tokens`.
    """

    key: SpeedKey
    rate: WorkRate
    reading: WorkRate = WorkRate()
    batch_size: int = 1
    load_s: float
    tokens_per_character: float
    prompt_tokens: float


class _SpeedFile(FrozenModel):
    speeds: tuple[ModelSpeed, ...] = ()


def make_key(work: Workload, ctx: RunContext) -> SpeedKey:
    """Return the key of the speed of this work."""
    is_training, runtime = work.kind is WorkKind.TRAINING, ctx.runtime
    options = f"batch_size={runtime.get_batch_size(work.role)}"
    if is_training and work.train is not None:
        lora = work.lora and work.lora.model_dump_json()
        options = (
            f"batch_size={work.train.batch_size} lora={lora} num_processes={runtime.num_processes} "
            f"micro_batch_tokens={runtime.micro_batch_tokens} "
            f"attn_implementation={runtime.attn_implementation}"
        )
    options += f" precision={runtime.precision}"
    threads = os.environ.get("OMP_NUM_THREADS") or os.cpu_count()
    return SpeedKey(
        model=work.base.fingerprint,
        machine=f"{platform.node()} {ctx.device} {threads}",
        kind=work.kind if is_training else WorkKind.GENERATION,
        options=options,
    )


def read_speeds(store: Path) -> dict[SpeedKey, ModelSpeed]:
    """Return the speeds in a store; empty if their file is missing or not readable."""
    try:
        file = _SpeedFile.model_validate_json((store / SPEED_FILE).read_bytes())
    except (OSError, ValidationError):
        return {}
    return {speed.key: speed for speed in file.speeds}


def save_speed(store: Path, speed: ModelSpeed) -> None:
    """Write a speed to the file of a store. It replaces the one with the same key."""
    speeds = read_speeds(store) | {speed.key: speed}
    with translate_disk_errors(store):
        make_private_folder(store)
        text = _SpeedFile(speeds=tuple(speeds.values())).model_dump_json(indent=1)
        write_atomic(store / SPEED_FILE, text)


def estimate_seconds(work: Workload, speed: ModelSpeed, rationale_tokens: float) -> float:
    """Return the seconds of this work, without the time to load the model."""
    prompt = speed.tokens_per_character * work.prompt_characters + speed.prompt_tokens
    target = speed.tokens_per_character * work.target_characters + _ANSWER_TOKENS
    target += rationale_tokens * work.has_rationale
    if work.kind is WorkKind.TRAINING:
        return speed.rate.estimate(work.n_updates, work.n_rows * (prompt + target))
    if work.kind is WorkKind.SCORING:
        return speed.reading.estimate(0, work.n_rows * (prompt + target))
    n_batches = ceil(work.n_rows / speed.batch_size)
    longest = target * estimate_longest(work.n_rows / n_batches)
    n_steps = min(work.max_new_tokens, longest if work.has_rationale else target)
    reading = speed.reading.estimate(0, work.n_rows * prompt)
    return reading + speed.rate.estimate(n_batches * n_steps, work.n_rows * n_steps)


def estimate_longest(n: float) -> float:
    """Return the expected length of the longest of n texts over the mean length.

    A batch is generated until its longest text ends. Lengths are assumed log-normal; the expected
    maximum of n normal numbers is Blom's approximation (1958).
    >>> [round(estimate_longest(n), 1) for n in (8, 64)]
    [1.6, 2.4]
    """
    z = float(ndtri((n - 0.375) / (n + 0.25)))
    return exp(LENGTH_LOG_SD * z - LENGTH_LOG_SD**2 / 2)


def measure_speeds(
    works: Sequence[Workload],
    examples: Sequence[Example],
    instructions: Sequence[tuple[str, str]],
    rationale_tokens: float,
    *,
    store: Path,
    ctx: RunContext,
) -> None:
    """Measure the speeds of these workloads with the user's texts, and save each in the store.

    Every model is loaded and runs for some seconds, as it would in a run.
    """
    for n_done, work in enumerate(works):
        ctx.progress("measure speed", n_done, len(works))
        name, revision = get_model_and_revision(work.base)
        started = time.monotonic()
        local = lm.load_model(
            name, device=ctx.device, revision=revision, precision=ctx.runtime.precision
        )
        load_s = time.monotonic() - started
        per_character, per_prompt = lm.count_tokens(local, examples)
        reading, size = WorkRate(), 1
        if work.train is not None:
            rows = _build_rows(work, examples, instructions, rationale_tokens / per_character)
            lengths = lm.count_row_tokens(local, rows)
            del local  # training loads the model itself
            rate = lm.measure_training(
                name, rows, lengths, work.train, device=ctx.device, revision=revision,
                lora=work.lora, runtime=ctx.runtime,
            )  # fmt: skip
        else:
            reading = lm.measure_reading(local, examples)
            n_steps, batch_size = work.max_new_tokens, ctx.runtime.get_batch_size(work.role)
            rate, size = lm.measure_decoding(local, examples, max(_MIN_STEPS, n_steps), batch_size)
        speed = ModelSpeed(
            key=make_key(work, ctx), rate=rate, reading=reading, batch_size=size, load_s=load_s,
            tokens_per_character=per_character, prompt_tokens=per_prompt,
        )  # fmt: skip
        save_speed(store, speed)
    ctx.progress("measure speed", len(works), len(works))


def _build_rows(
    work: Workload,
    examples: Sequence[Example],
    instructions: Sequence[tuple[str, str]],
    rationale_characters: float,
) -> list[TrainingSequence]:
    """Return training sequences as this work has them. Text of questions replaces rationales."""
    if work.is_instruction:
        return [
            TrainingSequence(str(i), (Message("user", prompt),), (TargetSpan(response),))
            for i, (prompt, response) in enumerate(instructions)
        ]
    words = " ".join(e.question for e in examples)
    rows = []
    for i, example in enumerate(examples):
        answer = example.answer or "unknown"
        prompt, target = render_answer_prompt(example), build_answer_target(answer)
        if work.has_rationale:
            z = float(ndtri((i + 0.5) / len(examples)))
            n = int(rationale_characters * exp(LENGTH_LOG_SD * z - LENGTH_LOG_SD**2 / 2))
            text = (words * (n // len(words) + 1))[:n]
            prompt, target = render_cot_prompt(example), build_cot_target(text, answer, 1.0)
        rows.append(TrainingSequence(example.id, prompt, target))
    return rows
