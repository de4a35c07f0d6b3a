"""The store: a folder of artifacts, each named by how it was made, so that what exists is done.

A stage works in `<stage>-<fingerprint>.partial`; its manifest is written and fsynced last, then one
rename makes it an artifact. A process that dies in between leaves nothing that could be mistaken
for a result. A lock that the operating system drops with its holder keeps two processes off the
same folder.
"""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from filelock import BaseFileLock, FileLock, Timeout
from pydantic import BaseModel

from bridgekd.errors import BadInput

MANIFEST = "manifest.json"
UNFINISHED = "unfinished"  # a stage's own folder for what it can go on from
LIBRARIES = ("bridgekd", "numpy", "pyarrow", "openai", "torch", "transformers", "peft")


@dataclass(frozen=True, slots=True)
class Artifact:
    """A finished folder of the store, or a source that a person brought (a file, a model, a Hub
    id).
    """

    stage: str
    fingerprint: str
    path: Path
    done: bool = True  # False: only planned

    @property
    def manifest(self) -> dict[str, Any]:
        """What made it: inputs, settings, facts, seconds, versions; empty for a source."""
        file = self.path / MANIFEST
        return json.loads(file.read_text()) if self.done and file.is_file() else {}

    @property
    def inputs(self) -> list["Artifact"]:
        """What it was made from; a source that a person brought has lost its place."""
        return [
            Artifact(row["stage"], row["fingerprint"], self.path.parent / row["folder"])
            for row in self.manifest.get("inputs", [])
        ]

    @property
    def facts(self) -> dict[str, Any]:
        """What the stage itself reported of its work (counts, spend, throughput)."""
        return dict(self.manifest.get("facts", {}))


@dataclass(frozen=True, slots=True)
class Stage:
    """A function (out, settings, *artifacts, live) -> facts, and the version of its meaning."""

    work: Callable[..., dict[str, Any]]
    version: int

    @property
    def name(self) -> str:
        return self.work.__name__


def stage(version: int) -> Callable[[Callable[..., dict[str, Any]]], Stage]:
    """Marks a function as a stage. Raise `version` by hand when what it means changes."""
    return lambda work: Stage(work, version)


class Maker(Protocol):
    """What a method needs of a store; a planning store has it too."""

    def make(
        self, stage: Stage, settings: BaseModel, *inputs: Artifact, live: object
    ) -> Artifact: ...


class Store:
    """Artifacts under one folder. `note` is told when another process holds what is wanted."""

    def __init__(self, folder: Path, note: Callable[[str], None] = lambda text: None) -> None:
        self.folder = folder
        self._note = note
        with on_disk(folder):
            (folder / ".locks").mkdir(parents=True, exist_ok=True)

    def make(self, stage: Stage, settings: BaseModel, *inputs: Artifact, live: object) -> Artifact:
        """The artifact of this stage, settings and inputs: made now, or found as it was made
        before.
        """
        wanted = name_of(stage, settings, inputs, self.folder)
        if wanted.done:
            return wanted
        lock = self._held(wanted.path.name)
        try:
            if not (wanted.path / MANIFEST).is_file():
                self._work(stage, settings, inputs, wanted, live)
        finally:
            lock.release()
        return name_of(stage, settings, inputs, self.folder)

    def _held(self, name: str) -> BaseFileLock:
        lock = FileLock(self.folder / ".locks" / f"{name}.lock")
        with on_disk(self.folder):
            try:
                lock.acquire(timeout=0)
            except Timeout:
                self._note(f"Another process is making {name}; waiting until it is done.")
                lock.acquire()
        return lock

    def _work(
        self,
        stage: Stage,
        settings: BaseModel,
        inputs: tuple[Artifact, ...],
        wanted: Artifact,
        live: object,
    ) -> None:
        partial = wanted.path.with_name(wanted.path.name + ".partial")
        with on_disk(partial):
            _clear(partial)
            started = time.monotonic()
            facts = stage.work(partial, settings, *inputs, live=live)
            shutil.rmtree(partial / UNFINISHED)
            manifest = {
                "stage": stage.name,
                "version": stage.version,
                "fingerprint": wanted.fingerprint,
                "settings": settings.model_dump(mode="json"),
                "inputs": [
                    {"stage": i.stage, "fingerprint": i.fingerprint, "folder": i.path.name}
                    for i in inputs
                ],
                "facts": facts,
                "seconds": round(time.monotonic() - started, 3),
                "libraries": _versions(),
                "commit": _commit(),
                "content": _hash_folder(partial),
                "made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            }
            write_durably(partial / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True))
            os.rename(partial, wanted.path)
            _sync_folder(self.folder)


class PlanStore:
    """Runs a method without doing anything: artifacts carry fingerprints and whether they already
    exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: dict[str, Artifact] = {}

    def make(self, stage: Stage, settings: BaseModel, *inputs: Artifact, live: object) -> Artifact:
        """The artifact as it would be."""
        planned = name_of(stage, settings, inputs, self.folder)
        self.seen[planned.path.name] = planned
        return planned


def name_of(
    stage: Stage, settings: BaseModel, inputs: Iterable[Artifact], folder: Path
) -> Artifact:
    """The artifact that this stage with these settings and inputs is, made or not."""
    identity = {
        "stage": stage.name,
        "version": stage.version,
        "settings": settings.model_dump(mode="json"),
        "inputs": [i.fingerprint for i in inputs],
    }
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = folder / f"{stage.name}-{fingerprint}"
    return Artifact(stage.name, fingerprint, path, (path / MANIFEST).is_file())


def ancestors(artifact: Artifact) -> dict[str, Artifact]:
    """Everything `artifact` was made from, itself included, by folder name; without sources."""
    found: dict[str, Artifact] = {}
    todo = [artifact]
    while todo:
        here = todo.pop()
        if here.path.name in found or not here.manifest:
            continue
        found[here.path.name] = here
        todo += here.inputs
    return found


def write_durably(path: Path, text: str) -> None:
    """The file holds all of `text` or is as it was, also after a power cut."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.writing")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


class on_disk:
    """Turns a disk's refusal into one sentence; the work so far stays where it is. `named` is what
    names the folder.
    """

    def __init__(self, folder: Path, named: str = "`store`") -> None:
        self._folder = folder
        self._named = named

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        reasons = {
            errno.ENOSPC: "the disk is full; free some space",
            errno.EDQUOT: "the disk quota is used up; free some space",
            errno.EROFS: f"the disk is read-only; choose another {self._named}",
            errno.EACCES: f"writing is not permitted; choose another {self._named}",
            errno.EPERM: f"writing is not permitted; choose another {self._named}",
            errno.ENOTDIR: f"part of the path is a file; choose another {self._named}",
        }
        if isinstance(exc, OSError) and exc.errno in reasons:
            reason = reasons[exc.errno]
            raise BadInput(
                f"cannot write to {self._folder}: {reason} and give the same command again; "
                "everything finished so far is kept"
            ) from exc


def _clear(partial: Path) -> None:
    """An empty folder but for what an earlier process left in `unfinished`.

    The folder's name holds settings and inputs, so what is left there belongs to the same work.
    """
    (partial / UNFINISHED).mkdir(parents=True, exist_ok=True)
    for path in partial.iterdir():
        if path.is_dir() and path.name != UNFINISHED:
            shutil.rmtree(path)
        elif path.is_file():
            path.unlink()


def sync(folder: Path) -> None:
    """Every file of a folder is on the disk."""
    for file in (p for p in folder.rglob("*") if p.is_file()):
        with open(file, "rb") as stream:
            os.fsync(stream.fileno())


def _hash_folder(folder: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(str(file.relative_to(folder)).encode())
        with open(file, "rb") as stream:
            digest.update(hashlib.file_digest(stream, "blake2b").digest())
            os.fsync(stream.fileno())  # on disk before the rename says so
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@cache
def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def _commit() -> str | None:
    """The commit of this package's own checkout; None for an installed copy."""
    here = Path(__file__).resolve().parent
    try:
        found = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
