"""A model artifact on a server: one started for it, or one that a person runs.

What makes sure that no other model answers: it is asked for under a name that holds its
fingerprint, or the server was started here, for this folder, at a port that was free.
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
    """The name that a model is served under: for what bridgekd made its folder's, which holds the
    fingerprint; for a folder of the person's, that and a hash of its content.
    """
    if model.stage == "hub":
        return re.sub(r"[^A-Za-z0-9._-]+", "-", str(model.path))
    kind, _, content = model.fingerprint.rpartition(":")
    return f"{model.path.name}-{content[:16]}" if kind else model.path.name


@contextmanager
def open_server(
    model: Artifact,
    terms: AssistantServerOptions,
    *,
    room: Path,
    folder: Path,
    note: Callable[[str], None],
) -> Iterator[ServedModel]:
    """The model, up and ready to be asked until the block ends.

    `room` takes merged weights and the server's log; a command runs in `folder`. Raises
    ServerUnavailableError where it does not start, or does not serve this model; InputError for a
    command or key that cannot be.
    """
    source, revision = get_model_and_revision(model)
    tokens = lm.load_remote_tokenizer(source, revision)
    key = read_key_variable(terms.api_key_env, "assistant.server")
    if terms.command is None:
        address = _make_endpoint(terms, get_served_name(model), str(terms.base_url))
        _check_served_model(address, key, lambda: _prepare_folder(model, room))
        yield _prepare_client(ServedModel(address, key, terms, tokens, room), note)
        return
    to_serve, name, port = (
        _prepare_folder(model, room),
        get_served_name(model),
        str(find_free_port()),
    )
    command = fill_placeholders(terms.command, {"model": to_serve, "name": name, "port": port})
    asked_for = name if "{name}" in terms.command else to_serve
    address = _make_endpoint(terms, asked_for, f"http://127.0.0.1:{port}/v1")
    lm.free_device_memory()
    log = room / "server.log"
    note(f"Starting the assistant's server for {name}; it prints to {log}.")
    with run_server(
        command,
        log=log,
        folder=folder,
        is_up=lambda: is_ready(address, key, LIST_TIMEOUT_S),
        timeout_s=terms.startup_timeout_s,
        secret="" if terms.api_key_env is None else key,
    ) as gone:
        yield _prepare_client(
            ServedModel(address, key, terms, tokens, room, get_exit_reason=gone), note
        )


def _make_endpoint(terms: AssistantServerOptions, name: str, url: str) -> TeacherOptions:
    """Where and as what the wire asks; of a teacher it has the address alone."""
    return TeacherOptions(model=name, base_url=url, api_key_env=terms.api_key_env)


def _prepare_folder(model: Artifact, room: Path) -> str:
    """What the server is to load: a folder, or a Hub id at its newest revision."""
    source, revision = get_model_and_revision(model)
    pinned = None if revision == "main" else revision
    return str(lm.prepare_model_folder(source, pinned, room, get_served_name(model)) or source)


def _check_served_model(address: TeacherOptions, key: str, to_serve: Callable[[], str]) -> None:
    found = list_models(address, key, LIST_TIMEOUT_S)
    if not isinstance(found, RequestOutcome) and address.model in found:
        return
    now = f"does not answer ({found.reason})" if isinstance(found, RequestOutcome) else (
        f"serves {', '.join(found) or 'nothing'}"
    )  # fmt: skip
    raise ServerUnavailableError(
        f"{address.effective_base_url} {now}: serve {to_serve()} there under the name "
        f"{address.model} "
        "and give the same command again; everything finished so far is kept"
    )


def _prepare_client(server: ServedModel, note: Callable[[str], None]) -> ServedModel:
    ready, reasons = detect_prompt_format(server)
    if ready.prompt_format == "text":
        note(f"The assistant's server is asked in text, not in tokens ({reasons[0]}).")
    if ready.prompt_format == "chat":
        note(
            "The assistant's server is asked by chat completions, through its own chat template "
            f"({'; '.join(reasons)})."
        )
    return ready
