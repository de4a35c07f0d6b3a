"""A model artifact on a server: one started for it, or one that a person runs.

What makes sure that no other model answers: it is asked for under a name that holds its
fingerprint, or the server was started here, for this folder, at a port that was free.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bridgekd import lm
from bridgekd.config import AssistantServer, Teacher
from bridgekd.edges.sources import model_and_revision
from bridgekd.edges.store import Artifact
from bridgekd.errors import ServerDown
from bridgekd.served.asking import Server, is_up, names
from bridgekd.served.process import filled, free_port, running
from bridgekd.served.writing import probed
from bridgekd.teacher.buy import key_in
from bridgekd.teacher.lines import Outcome

LIST_TIMEOUT_S = 10.0


def served_name(model: Artifact) -> str:
    """The name that a model is served under: for what bridgekd made its folder's, which holds the
    fingerprint; for a folder of the person's, that and a hash of its content.
    """
    if model.stage == "hub":
        return re.sub(r"[^A-Za-z0-9._-]+", "-", str(model.path))
    kind, _, content = model.fingerprint.rpartition(":")
    return f"{model.path.name}-{content[:16]}" if kind else model.path.name


@contextmanager
def serving(
    model: Artifact,
    terms: AssistantServer,
    *,
    room: Path,
    folder: Path,
    note: Callable[[str], None],
) -> Iterator[Server]:
    """The model, up and ready to be asked until the block ends.

    `room` takes merged weights and the server's log; a command runs in `folder`. Raises ServerDown
    where it does not start, or does not serve this model; BadInput for a command or key that
    cannot be.
    """
    source, revision = model_and_revision(model)
    tokens = lm.read_tokens(source, revision)
    key = key_in(terms.api_key_env, "assistant.server")
    if terms.command is None:
        address = _address(terms, served_name(model), str(terms.base_url))
        _refuse_another(address, key, lambda: _folder(model, room))
        yield _ready(Server(address, key, terms, tokens, room), note)
        return
    to_serve, name, port = _folder(model, room), served_name(model), str(free_port())
    command = filled(terms.command, {"model": to_serve, "name": name, "port": port})
    asked_for = name if "{name}" in terms.command else to_serve
    address = _address(terms, asked_for, f"http://127.0.0.1:{port}/v1")
    lm.free_device_memory()
    log = room / "server.log"
    note(f"Starting the assistant's server for {name}; it prints to {log}.")
    with running(
        command,
        log=log,
        folder=folder,
        is_up=lambda: is_up(address, key, LIST_TIMEOUT_S),
        timeout_s=terms.start_timeout_s,
        secret="" if terms.api_key_env is None else key,
    ) as gone:
        yield _ready(Server(address, key, terms, tokens, room, gone=gone), note)


def _address(terms: AssistantServer, name: str, url: str) -> Teacher:
    """Where and as what the wire asks; of a teacher it has the address alone."""
    return Teacher(model=name, base_url=url, api_key_env=terms.api_key_env)


def _folder(model: Artifact, room: Path) -> str:
    """What the server is to load: a folder, or a Hub id at its newest revision."""
    source, revision = model_and_revision(model)
    pinned = None if revision == "main" else revision
    return str(lm.served_folder(source, pinned, room, served_name(model)) or source)


def _refuse_another(address: Teacher, key: str, to_serve: Callable[[], str]) -> None:
    found = names(address, key, LIST_TIMEOUT_S)
    if not isinstance(found, Outcome) and address.model in found:
        return
    now = f"does not answer ({found.reason})" if isinstance(found, Outcome) else (
        f"serves {', '.join(found) or 'nothing'}"
    )  # fmt: skip
    raise ServerDown(
        f"{address.url} {now}: serve {to_serve()} there under the name {address.model} "
        "and give the same command again; everything finished so far is kept"
    )


def _ready(server: Server, note: Callable[[str], None]) -> Server:
    ready, reasons = probed(server)
    if ready.form == "text":
        note(f"The assistant's server is asked in text, not in tokens ({reasons[0]}).")
    if ready.form == "chat":
        note(
            "The assistant's server is asked by chat completions, through its own chat template "
            f"({'; '.join(reasons)})."
        )
    return ready
