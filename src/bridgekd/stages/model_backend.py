"""Where a model runs: in this process or on a server. A stage uses both through `ModelBackend`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bridgekd import lm
from bridgekd.io.artifact_store import RESUME_DIR, Artifact
from bridgekd.io.sources import get_model_and_revision
from bridgekd.recipe import BackendName, FrozenModel
from bridgekd.stages.run_context import RunContext

if TYPE_CHECKING:
    from bridgekd.inference_server.client import ServedModel


class BackendSettings(FrozenModel):
    """Settings of a stage that uses the assistant. The backends are in its fingerprint, because a
    server's numbers are not those of this process; which server it is, is not.
    """

    backend: BackendName = "transformers"
    scoring: BackendName = "transformers"

    @property
    def uses_server(self) -> bool:
        return "server" in (self.backend, self.scoring)


class ModelBackend(Protocol):
    """A model that is ready. The methods have the arguments of their namesakes in `lm`, without the
    model. `prompt_format` says how a server takes its prompts; None in this process.
    """

    @property
    def prompt_format(self) -> str | None: ...
    def generate_texts(self, *args: Any, **options: Any) -> list[str]: ...
    def sample_texts(self, *args: Any, **options: Any) -> list[tuple[str, ...]]: ...
    def score_examples(self, *args: Any, **options: Any) -> "lm.ScoredExamples": ...
    def estimate_confidence(self, *args: Any, **options: Any) -> NDArray[np.float64]: ...


class LocalBackend:
    """A model in this process."""

    prompt_format = None

    def __init__(self, model: "lm.LocalModel") -> None:
        self.model = model

    def generate_texts(self, *args: Any, **options: Any) -> list[str]:
        return lm.generate_texts(self.model, *args, **options)

    def sample_texts(self, *args: Any, **options: Any) -> list[tuple[str, ...]]:
        return lm.sample_texts(self.model, *args, **options)

    def score_examples(self, *args: Any, **options: Any) -> "lm.ScoredExamples":
        return lm.score_examples(self.model, *args, **options)

    def estimate_confidence(self, *args: Any, **options: Any) -> NDArray[np.float64]:
        return lm.estimate_confidence(self.model, *args, **options)


class ServerBackend:
    """A model on an inference server. Its modules are imported late: a plan needs no openai."""

    def __init__(self, server: "ServedModel") -> None:
        self.server = server
        self.prompt_format = server.prompt_format

    def generate_texts(self, *args: Any, **options: Any) -> list[str]:
        from bridgekd.inference_server import generate

        return generate.generate_texts(self.server, *args, **options)

    def sample_texts(self, *args: Any, **options: Any) -> list[tuple[str, ...]]:
        from bridgekd.inference_server import generate

        return generate.sample_texts(self.server, *args, **options)

    def score_examples(self, *args: Any, **options: Any) -> "lm.ScoredExamples":
        from bridgekd.inference_server import logprobs

        return logprobs.score_examples(self.server, *args, **options)

    def estimate_confidence(self, *args: Any, **options: Any) -> NDArray[np.float64]:
        from bridgekd.inference_server import logprobs

        return logprobs.estimate_confidence(self.server, *args, **options)


@contextmanager
def open_backend(
    model: Artifact, backend: BackendName, output_dir: Path, ctx: RunContext
) -> Iterator[ModelBackend]:
    """Yield a model that is ready until the block ends; a server works in the stage's folder."""
    if backend == "transformers":
        yield LocalBackend(load_artifact_model(model, ctx))
        return
    from bridgekd.inference_server.open_server import open_server

    assert ctx.server is not None, "a recipe with that backend names a server"
    workdir = output_dir / RESUME_DIR
    with open_server(
        model, ctx.server, workdir=workdir, folder=ctx.recipe_folder, note=ctx.notify
    ) as server:
        yield ServerBackend(server)


def load_artifact_model(model: Artifact, ctx: RunContext) -> "lm.LocalModel":
    """Return a model artifact, loaded in this process."""
    name, revision = get_model_and_revision(model)
    return lm.load_model(name, device=ctx.device, revision=revision)
