"""Where a model runs: in this process or on an inference server. Stages use both the same way, and
every batch that they generate is saved, so that a stopped stage resumes after the last one.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bridgekd import lm
from bridgekd.io.artifact_store import RESUME_DIR, Artifact
from bridgekd.io.row_files import append_jsonl, read_appended_jsonl
from bridgekd.io.sources import get_model_and_revision
from bridgekd.prompts import ANSWER_LINE
from bridgekd.recipe import BackendName, FrozenModel, Role
from bridgekd.records import Message, TargetLogprobs
from bridgekd.rng import SAMPLING_TEMPERATURE
from bridgekd.stages.run_context import RunContext
from bridgekd.throughput import GenerationSpeed, TextLength, Throughput

Prompts = Sequence[tuple[Message, ...]]


class BackendSettings(FrozenModel):
    """Settings of a stage that uses the assistant. The backends are in its fingerprint, because a
    server's numbers differ from those of this process. The server's address is not.
    """

    backend: BackendName = "transformers"
    scoring: BackendName = "transformers"

    @property
    def uses_server(self) -> bool:
        return "server" in (self.backend, self.scoring)


@dataclass(frozen=True, slots=True)
class ModelBackend:
    """A loaded model. The functions have the arguments of their namesakes in `lm`, without the
    model. What `score_targets` has computed is saved. `prompt_format`: how a server takes prompts;
    None in this process.
    """

    generate_texts: Callable[..., list[str]]
    sample_texts: Callable[..., list[tuple[str, ...]]]
    score_examples: Callable[..., "lm.ScoredExamples"]
    estimate_confidence: Callable[..., NDArray[np.float64]]
    score_targets: Callable[..., list[TargetLogprobs]]
    prompt_format: str | None = None


def wrap_local_model(model: "lm.LocalModel", workdir: Path | None = None) -> ModelBackend:
    """Return a model in this process as a backend, which saves what it scores in `workdir`."""
    return ModelBackend(
        generate_texts=partial(lm.generate_texts, model),
        sample_texts=partial(lm.sample_texts, model),
        score_examples=partial(lm.score_examples, model),
        estimate_confidence=partial(lm.estimate_confidence, model),
        score_targets=partial(_score_targets, model, workdir),
    )


def _score_targets(
    model: "lm.LocalModel", workdir: Path | None, *args: Any, **kwargs: Any
) -> list[TargetLogprobs]:
    if workdir is None:
        return lm.score_targets(model, *args, **kwargs)
    file = workdir / "targets.jsonl"
    known = dict(chain.from_iterable(read_appended_jsonl(file)))

    def save(rows: list[int], logprobs: list[list[float]]) -> None:
        append_jsonl(file, list(zip(rows, logprobs, strict=True)))

    return lm.score_targets(model, *args, known=known, on_batch=save, **kwargs)


@contextmanager
def open_backend(
    model: Artifact, backend: BackendName, output_dir: Path, ctx: RunContext
) -> Iterator[ModelBackend]:
    """Yield a loaded model. A server works in the stage's folder and stops when the block ends."""
    if backend == "transformers":
        yield wrap_local_model(load_artifact_model(model, ctx), output_dir / RESUME_DIR)
        return
    # Late imports: a plan runs on an install without openai.
    from bridgekd.inference_server import generate, logprobs
    from bridgekd.inference_server.open_server import open_server

    assert ctx.server is not None, "a recipe with that backend names a server"
    workdir = output_dir / RESUME_DIR
    with open_server(
        model, ctx.server, workdir=workdir, folder=ctx.recipe_folder, note=ctx.notify
    ) as server:
        yield ModelBackend(
            generate_texts=partial(generate.generate_texts, server),
            sample_texts=partial(generate.sample_texts, server),
            score_examples=partial(logprobs.score_examples, server),
            estimate_confidence=partial(logprobs.estimate_confidence, server),
            score_targets=partial(logprobs.score_targets, server),
            prompt_format=server.prompt_format,
        )


def load_artifact_model(model: Artifact, ctx: RunContext) -> "lm.LocalModel":
    """Return a model artifact, loaded in this process."""
    name, revision = get_model_and_revision(model)
    local = lm.load_model(
        name, device=ctx.device, revision=revision, precision=ctx.runtime.precision
    )
    model.check_unchanged()
    return local


def report_generation(
    speed: Throughput, ctx: RunContext, role: Role, max_new_tokens: int
) -> GenerationSpeed | None:
    """Return what a model of `role` generated, and tell the user how many texts were cut off."""
    if speed.n_cut_off:
        ctx.notify(
            f"{speed.n_cut_off:,} of {speed.n_texts:,} texts of the {role} reached "
            f"{max_new_tokens} tokens before their end and were cut off. A text without its end "
            f"has no answer. Set {role}.max_new_tokens to {2 * max_new_tokens} or more."
        )
    return speed.to_stats()


@dataclass(frozen=True, slots=True)
class ResumableGenerator:
    """Generates in the folder of one stage with a model of `role`. `speed` counts what this process
    generated. Every text ends with its answer line.
    """

    output_dir: Path
    ctx: RunContext
    role: Role
    max_new_tokens: int
    speed: Throughput = field(default_factory=Throughput)

    def generate(
        self, model: ModelBackend, prompts: Prompts, label: str, name: str = "texts"
    ) -> list[str]:
        """Return the greedy text of every prompt. `name` is the file of this call's texts."""
        return model.generate_texts(prompts, label=label, **self._build_options(name))

    def generate_with_lengths(
        self, model: ModelBackend, prompts: Prompts, label: str
    ) -> list[tuple[str, TextLength]]:
        """Return the greedy text of every prompt with its length, also of an earlier process."""
        texts = self.generate(model, prompts, label)
        saved = chain.from_iterable(read_appended_jsonl(self._get_file("texts")))
        lengths = {row: TextLength(*length) for row, _, length in saved}
        return [(text, lengths[row]) for row, text in enumerate(texts)]

    def sample(
        self,
        model: ModelBackend,
        prompts: Prompts,
        n: int,
        seed: int,
        temperature: float = SAMPLING_TEMPERATURE,
    ) -> list[tuple[str, ...]]:
        """Return `n` texts of every prompt, each with its own stream."""
        options = self._build_options("samples")
        return model.sample_texts(
            prompts, n, temperature=temperature, seed=seed, label=f"draw {n} samples",
            **options,
        )  # fmt: skip

    def report_speed(self) -> GenerationSpeed | None:
        """Return what was generated, and tell the user how many texts were cut off."""
        return report_generation(self.speed, self.ctx, self.role, self.max_new_tokens)

    def _get_file(self, name: str) -> Path:
        return self.output_dir / RESUME_DIR / f"{name}.jsonl"

    def _build_options(self, name: str) -> dict[str, object]:
        file = self._get_file(name)

        def save(rows: Sequence[int], texts: Sequence[object], lengths: Sequence[object]) -> None:
            append_jsonl(file, list(zip(rows, texts, lengths, strict=True)))

        return {
            "max_new_tokens": self.max_new_tokens,
            "batch_size": self.ctx.runtime.get_batch_size(self.role),
            "progress": self.ctx.progress,
            "known": {row: text for batch in read_appended_jsonl(file) for row, text, _ in batch},
            "on_batch": save,
            "until": ANSWER_LINE,
            "throughput": self.speed,
        }
