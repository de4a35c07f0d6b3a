"""A real server: `transformers serve`, which accepts text only."""

import shlex
import sys
from pathlib import Path

import pytest

from bridgekd import lm
from bridgekd.errors import InputError
from bridgekd.inference_server import generate, logprobs
from bridgekd.inference_server.open_server import open_server
from bridgekd.io.sources import resolve_model
from bridgekd.recipe import AssistantServerOptions
from bridgekd.records import Example, Message
from tiny_models import write_tiny

PROGRAM = Path(sys.executable).with_name("transformers")
PROMPTS = [(Message("user", "Who holds " + "the red box " * k + "?"),) for k in (3, 1, 4, 1, 5, 0)]


def test_transformers_serve_writes_what_the_model_writes_in_process(tmp_path, monkeypatch):
    for package in ("fastapi", "uvicorn"):
        pytest.importorskip(package, reason=f"{package} is not installed; pip install '.[dev]'")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder, notes = write_tiny(tmp_path / "model"), []
    command = shlex.join([str(PROGRAM), "serve", "{model}", "--port", "{port}", "--device", "cpu"])
    with open_server(
        resolve_model("model", tmp_path, None),
        AssistantServerOptions(command=command, max_concurrent_requests=2),
        workdir=tmp_path,
        folder=tmp_path,
        note=notes.append,
    ) as server:
        texts = generate.generate_texts(server, PROMPTS, max_new_tokens=12, batch_size=4)
        drawn = generate.generate_texts(
            server, PROMPTS, max_new_tokens=12, batch_size=4, temperature=0.7, seed=1
        )
        with pytest.raises(InputError, match="returns no log-probabilities"):
            logprobs.score_examples(server, [Example("a", "Who holds ?", "Ann")], batch_size=4)
    local = lm.load_model(folder, device="cpu")
    assert texts == lm.generate_texts(local, PROMPTS, max_new_tokens=12, batch_size=4)
    assert len(set(drawn)) > 2 and drawn != texts
    assert notes[-1].startswith(
        "The assistant's server receives prompts as text, not as tokens (Unexpected"
    )
