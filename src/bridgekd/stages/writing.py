"""What a model writes for many questions, kept batch by batch so that a killed stage goes on
behind what is there.
"""

from collections.abc import Sequence
from pathlib import Path

from bridgekd.core.draws import SAMPLING_TEMPERATURE, SEED_STEP
from bridgekd.edges.rows import append_json, read_appended
from bridgekd.edges.store import UNFINISHED
from bridgekd.records import Message
from bridgekd.stages.asking import Model, generate
from bridgekd.stages.live import Live


def written(
    out: Path,
    local: Model,
    prompts: Sequence[tuple[Message, ...]],
    *,
    max_new_tokens: int,
    batch_size: int,
    label: str,
    live: Live,
    name: str = "texts",
) -> list[str]:
    """The greedy text of every prompt, in order. `name` tells apart what one stage writes."""
    return _written(out, local, prompts, max_new_tokens, batch_size, 0.0, 0, label, name, live)


def samples(
    out: Path,
    local: Model,
    prompts: Sequence[tuple[Message, ...]],
    n: int,
    *,
    seed: int,
    max_new_tokens: int,
    batch_size: int,
    live: Live,
) -> list[tuple[str, ...]]:
    """`n` texts of every prompt at SAMPLING_TEMPERATURE, each sample from streams of its own."""
    drawn = [
        _written(
            out, local, prompts, max_new_tokens, batch_size, SAMPLING_TEMPERATURE,
            seed + SEED_STEP * k, f"sample {k + 1} of {n}", f"sample-{k}", live,
        )
        for k in range(n)
    ]  # fmt: skip
    return list(zip(*drawn, strict=True))


def _written(
    out: Path,
    local: Model,
    prompts: Sequence[tuple[Message, ...]],
    max_new_tokens: int,
    batch_size: int,
    temperature: float,
    seed: int,
    label: str,
    name: str,
    live: Live,
) -> list[str]:
    file = out / UNFINISHED / f"{name}.jsonl"
    return generate(
        local,
        prompts,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        temperature=temperature,
        seed=seed,
        progress=live.progress,
        label=label,
        known={i: text for batch in read_appended(file) for i, text in batch},
        on_batch=lambda rows, new: append_json(file, list(zip(rows, new, strict=True))),
    )
