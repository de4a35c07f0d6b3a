"""What a model writes for many questions, kept as it comes so that a killed stage goes on behind
what is there. Every text ends with its answer line, whatever the model would add.
"""

from collections.abc import Sequence
from pathlib import Path

from bridgekd.core.draws import SAMPLING_TEMPERATURE
from bridgekd.core.prompts import ANSWER_LINE
from bridgekd.core.throughput import Throughput
from bridgekd.edges.rows import append_json, read_appended
from bridgekd.edges.store import UNFINISHED
from bridgekd.records import Message
from bridgekd.stages.asking import Model, generate, sample
from bridgekd.stages.live import Live


def written(
    out: Path,
    local: Model,
    prompts: Sequence[tuple[Message, ...]],
    *,
    max_new_tokens: int,
    batch_size: int | None,
    label: str,
    live: Live,
    throughput: Throughput,
    name: str = "texts",
) -> list[str]:
    """The greedy text of every prompt, in order. `name` tells apart what one stage writes."""
    file = out / UNFINISHED / f"{name}.jsonl"
    return generate(
        local,
        prompts,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        progress=live.progress,
        label=label,
        known={i: text for wave in read_appended(file) for i, text in wave},
        on_batch=lambda rows, new: append_json(file, list(zip(rows, new, strict=True))),
        until=ANSWER_LINE,
        throughput=throughput,
    )


def samples(
    out: Path,
    local: Model,
    prompts: Sequence[tuple[Message, ...]],
    n: int,
    *,
    seed: int,
    max_new_tokens: int,
    batch_size: int | None,
    live: Live,
    throughput: Throughput,
) -> list[tuple[str, ...]]:
    """`n` texts of every prompt at SAMPLING_TEMPERATURE, each sample from streams of its own."""
    file = out / UNFINISHED / "samples.jsonl"
    return sample(
        local,
        prompts,
        n,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        temperature=SAMPLING_TEMPERATURE,
        seed=seed,
        progress=live.progress,
        label=f"draw {n} samples",
        known={i: texts for wave in read_appended(file) for i, texts in wave},
        on_batch=lambda rows, new: append_json(file, list(zip(rows, new, strict=True))),
        until=ANSWER_LINE,
        throughput=throughput,
    )
