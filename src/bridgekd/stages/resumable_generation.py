"""What a local model generates for a stage, saved as it comes: a killed stage resumes behind it.

Every text ends with its answer line, whatever the model would add.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bridgekd.io.artifact_store import RESUME_DIR
from bridgekd.io.row_files import append_jsonl, read_appended_jsonl
from bridgekd.prompts import ANSWER_LINE
from bridgekd.records import Message
from bridgekd.rng import SAMPLING_TEMPERATURE
from bridgekd.stages.model_backend import ModelBackend
from bridgekd.stages.run_context import RunContext
from bridgekd.throughput import Throughput

Prompts = Sequence[tuple[Message, ...]]


@dataclass(frozen=True, slots=True)
class ResumableGenerator:
    """Generates in the folder of one stage. `speed` counts what this process generated."""

    output_dir: Path
    ctx: RunContext
    batch_size: int | None
    max_new_tokens: int
    speed: Throughput = field(default_factory=Throughput)

    def generate(
        self, model: ModelBackend, prompts: Prompts, label: str, name: str = "texts"
    ) -> list[str]:
        """Return the greedy text of every prompt. `name` tells apart several calls of a stage."""
        return model.generate_texts(prompts, label=label, **self._options(name))

    def sample(
        self, model: ModelBackend, prompts: Prompts, n: int, seed: int
    ) -> list[tuple[str, ...]]:
        """Return `n` texts of every prompt at SAMPLING_TEMPERATURE, each with its own stream."""
        return model.sample_texts(
            prompts,
            n,
            temperature=SAMPLING_TEMPERATURE,
            seed=seed,
            label=f"draw {n} samples",
            **self._options("samples"),
        )

    def _options(self, name: str) -> dict[str, Any]:
        file = self.output_dir / RESUME_DIR / f"{name}.jsonl"

        def save(rows: Sequence[int], texts: Sequence[Any]) -> None:
            append_jsonl(file, list(zip(rows, texts, strict=True)))

        return {
            "max_new_tokens": self.max_new_tokens,
            "batch_size": self.batch_size,
            "progress": self.ctx.progress,
            "known": {row: text for wave in read_appended_jsonl(file) for row, text in wave},
            "on_batch": save,
            "until": ANSWER_LINE,
            "throughput": self.speed,
        }
