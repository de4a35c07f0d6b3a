"""A model to be asked, wherever it runs: in this process or on a server."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray

from bridgekd import lm
from bridgekd.config import Backend
from bridgekd.edges.store import UNFINISHED, Artifact
from bridgekd.stages.live import Live
from bridgekd.stages.pool import open_model

if TYPE_CHECKING:
    from bridgekd.served.asking import Server

Model: TypeAlias = Union["lm.LocalModel", "Server"]


@contextmanager
def asked(model: Artifact, backend: Backend, out: Path, live: Live) -> Iterator[Model]:
    """A model artifact, ready to be asked until the block ends; `out` is the stage's folder."""
    if backend == "transformers":
        yield open_model(model, live)
        return
    from bridgekd.served.opening import serving  # late: a plan does without openai

    assert live.server is not None, "a recipe with that backend names a server"
    room = out / UNFINISHED
    with serving(model, live.server, room=room, folder=live.folder, note=live.note) as server:
        yield server


def generate(model: Model, *arguments: Any, **settings: Any) -> list[str]:
    """`lm.generate`, by whoever has the model."""
    if isinstance(model, lm.LocalModel):
        return lm.generate(model, *arguments, **settings)
    from bridgekd.served import writing

    return writing.generate(model, *arguments, **settings)


def sample(model: Model, *arguments: Any, **settings: Any) -> list[tuple[str, ...]]:
    """`lm.sample`, by whoever has the model."""
    if isinstance(model, lm.LocalModel):
        return lm.sample(model, *arguments, **settings)
    from bridgekd.served import writing

    return writing.sample(model, *arguments, **settings)


def score(model: Model, *arguments: Any, **settings: Any) -> "lm.Scored":
    """`lm.score`, by whoever has the model."""
    if isinstance(model, lm.LocalModel):
        return lm.score(model, *arguments, **settings)
    from bridgekd.served import scoring

    return scoring.score(model, *arguments, **settings)


def confidence(model: Model, *arguments: Any, **settings: Any) -> NDArray[np.float64]:
    """`lm.confidence`, by whoever has the model."""
    if isinstance(model, lm.LocalModel):
        return lm.confidence(model, *arguments, **settings)
    from bridgekd.served import scoring

    return scoring.confidence(model, *arguments, **settings)


def form_of(model: Model) -> str | None:
    """How a server took its prompts; None for a model in process."""
    return None if isinstance(model, lm.LocalModel) else model.form
