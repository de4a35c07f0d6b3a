"""Where a model runs: in this process or on a server. A stage uses both through `ModelBackend`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bridgekd import lm
from bridgekd.config import Backend, Section
from bridgekd.edges.sources import model_and_revision
from bridgekd.edges.store import UNFINISHED, Artifact
from bridgekd.stages.live import Live

if TYPE_CHECKING:
    from bridgekd.served.asking import Server


class BackendSettings(Section):
    """Settings of a stage that uses the assistant. The backends are in its fingerprint, because a
    server's numbers are not those of this process; which server it is, is not.
    """

    backend: Backend = "transformers"
    scoring: Backend = "transformers"

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
    def score_examples(self, *args: Any, **options: Any) -> "lm.Scored": ...
    def estimate_confidence(self, *args: Any, **options: Any) -> NDArray[np.float64]: ...


class LocalBackend:
    """A model in this process."""

    prompt_format = None

    def __init__(self, model: "lm.LocalModel") -> None:
        self.model = model

    def generate_texts(self, *args: Any, **options: Any) -> list[str]:
        return lm.generate(self.model, *args, **options)

    def sample_texts(self, *args: Any, **options: Any) -> list[tuple[str, ...]]:
        return lm.sample(self.model, *args, **options)

    def score_examples(self, *args: Any, **options: Any) -> "lm.Scored":
        return lm.score(self.model, *args, **options)

    def estimate_confidence(self, *args: Any, **options: Any) -> NDArray[np.float64]:
        return lm.confidence(self.model, *args, **options)


class ServerBackend:
    """A model on an inference server. Its modules are imported late: a plan needs no openai."""

    def __init__(self, server: "Server") -> None:
        self.server = server
        self.prompt_format = server.form

    def generate_texts(self, *args: Any, **options: Any) -> list[str]:
        from bridgekd.served import writing

        return writing.generate(self.server, *args, **options)

    def sample_texts(self, *args: Any, **options: Any) -> list[tuple[str, ...]]:
        from bridgekd.served import writing

        return writing.sample(self.server, *args, **options)

    def score_examples(self, *args: Any, **options: Any) -> "lm.Scored":
        from bridgekd.served import scoring

        return scoring.score(self.server, *args, **options)

    def estimate_confidence(self, *args: Any, **options: Any) -> NDArray[np.float64]:
        from bridgekd.served import scoring

        return scoring.confidence(self.server, *args, **options)


@contextmanager
def open_backend(
    model: Artifact, backend: Backend, output_dir: Path, ctx: Live
) -> Iterator[ModelBackend]:
    """Yield a model that is ready until the block ends; a server works in the stage's folder."""
    if backend == "transformers":
        yield LocalBackend(load_artifact_model(model, ctx))
        return
    from bridgekd.served.opening import serving

    assert ctx.server is not None, "a recipe with that backend names a server"
    room = output_dir / UNFINISHED
    with serving(model, ctx.server, room=room, folder=ctx.folder, note=ctx.note) as server:
        yield ServerBackend(server)


def load_artifact_model(model: Artifact, ctx: Live) -> "lm.LocalModel":
    """Return a model artifact, loaded in this process."""
    name, revision = model_and_revision(model)
    return lm.load(name, device=ctx.device, revision=revision)
