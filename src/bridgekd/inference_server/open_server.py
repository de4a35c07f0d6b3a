"""Opens a model artifact on a server: one that is started for it, or one that the user runs.

No other model can answer: requests name the model's fingerprint, or the server was started here,
for this folder, at a port that was free.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bridgekd import lm
from bridgekd.api_client.openai_client import read_key_variable
from bridgekd.api_client.outcome import RequestOutcome
from bridgekd.errors import ServerUnavailableError
from bridgekd.inference_server.client import ServedModel, is_ready, list_models
from bridgekd.inference_server.generate import detect_prompt_format
from bridgekd.inference_server.process import fill_placeholders, find_free_port, run_server
from bridgekd.io.artifact_store import Artifact
from bridgekd.io.sources import get_model_and_revision
from bridgekd.recipe import AssistantServerOptions, TeacherOptions

LIST_TIMEOUT_S = 10.0


def get_served_name(model: Artifact) -> str:
    """Return the name that a model is served under.

    The folder of an artifact has its fingerprint in its name. For the user's own folder, the name
    is followed by a hash of its content.
    """
    if model.stage == "hub":
        return re.sub(r"[^A-Za-z0-9._-]+", "-", str(model.path))
    kind, _, content = model.fingerprint.rpartition(":")
    return f"{model.path.name}-{content[:16]}" if kind else model.path.name


@contextmanager
def open_server(
    model: Artifact,
    options: AssistantServerOptions,
    *,
    workdir: Path,
    folder: Path,
    note: Callable[[str], None],
) -> Iterator[ServedModel]:
    """Yield the model, ready for requests until the block ends.

    `workdir` receives merged weights and the server's log; a command runs in `folder`. Raises
    ServerUnavailableError if the server does not start or does not serve this model, and InputError
    for an invalid command or key.
    """
    source, revision = get_model_and_revision(model)
    tokenizer = lm.load_remote_tokenizer(source, revision)
    key = read_key_variable(options.api_key_env, "assistant.server")
    name = get_served_name(model)
    if options.command is None:
        endpoint = _make_endpoint(options, name, str(options.base_url))
        _check_served_model(endpoint, key, lambda: _prepare_folder(model, workdir))
        server = ServedModel(endpoint, key, options, tokenizer, workdir)
        yield _detect_format(server, note)
        return
    to_serve = _prepare_folder(model, workdir)
    port = str(find_free_port())
    command = fill_placeholders(options.command, {"model": to_serve, "name": name, "port": port})
    requested = name if "{name}" in options.command else to_serve
    endpoint = _make_endpoint(options, requested, f"http://127.0.0.1:{port}/v1")
    lm.free_device_memory()
    log = workdir / "server.log"
    note(f"Starting the assistant's server for {name}; it prints to {log}.")
    with run_server(
        command,
        log=log,
        folder=folder,
        is_up=lambda: is_ready(endpoint, key, LIST_TIMEOUT_S),
        timeout_s=options.startup_timeout_s,
        secret="" if options.api_key_env is None else key,
    ) as get_exit_reason:
        server = ServedModel(
            endpoint, key, options, tokenizer, workdir, get_exit_reason=get_exit_reason
        )
        yield _detect_format(server, note)


def _make_endpoint(options: AssistantServerOptions, name: str, url: str) -> TeacherOptions:
    """Return the address and the model name, as the client takes them."""
    return TeacherOptions(model=name, base_url=url, api_key_env=options.api_key_env)


def _prepare_folder(model: Artifact, workdir: Path) -> str:
    """Return what the server must load: a folder, or a Hub id at its newest revision."""
    source, revision = get_model_and_revision(model)
    pinned = None if revision == "main" else revision
    return str(lm.prepare_model_folder(source, pinned, workdir, get_served_name(model)) or source)


def _check_served_model(endpoint: TeacherOptions, key: str, get_folder: Callable[[], str]) -> None:
    models = list_models(endpoint, key, LIST_TIMEOUT_S)
    if isinstance(models, RequestOutcome):
        problem = f"does not answer ({models.reason})"
    elif endpoint.model in models:
        return
    else:
        problem = f"serves {', '.join(models) or 'nothing'}"
    raise ServerUnavailableError(
        f"{endpoint.effective_base_url} {problem}: serve {get_folder()} there under the name "
        f"{endpoint.model} and run the same command again. Everything finished so far is saved."
    )


def _detect_format(server: ServedModel, note: Callable[[str], None]) -> ServedModel:
    server, reasons = detect_prompt_format(server)
    if server.prompt_format == "text":
        note(f"The assistant's server receives prompts as text, not as tokens ({reasons[0]}).")
    if server.prompt_format == "chat":
        note(
            "The assistant's server receives prompts as chat completions, through its own chat "
            f"template ({'; '.join(reasons)})."
        )
    return server
