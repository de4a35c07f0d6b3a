"""The store: a folder of artifacts, each named by how it was made, so that what exists is done.

A stage works in `<stage>-<fingerprint>.partial`; its manifest is written and fsynced last, then one
rename makes it an artifact. A process that dies in between leaves nothing that could be mistaken
for a result. A lock that the operating system drops with its holder keeps two processes off the
same folder.
"""

import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib import metadata
from inspect import signature
from itertools import chain
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from bridgekd.errors import InputError
from bridgekd.io.disk import fsync_folder, translate_disk_errors, write_atomic
from bridgekd.throughput import WorkKind

MANIFEST = "manifest.json"
RESUME_DIR = "unfinished"  # a stage's own folder for what it can go on from
LIBRARIES = ("bridgekd", "numpy", "pyarrow", "openai", "torch", "transformers", "peft")


class Stats(BaseModel):
    """What a stage reports of its work (counts, spend, speed).

    A reader may use a smaller class than the stage did: what that class does not name is ignored.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")


class ArtifactRef(BaseModel):
    """An input as a manifest names it. `folder` is the input's folder name in the same store."""

    model_config = ConfigDict(frozen=True)

    stage: str
    fingerprint: str
    folder: str


class Manifest(BaseModel):
    """How an artifact was made. `inputs` has the parameter names of the stage's function."""

    model_config = ConfigDict(frozen=True)

    stage: str
    version: int
    kind: WorkKind
    title: str
    fingerprint: str
    settings: dict[str, JsonValue]
    inputs: dict[str, tuple[ArtifactRef, ...]]
    stats: dict[str, JsonValue]
    seconds: float
    libraries: dict[str, str]
    commit: str | None
    content: str
    made_at: str


M = TypeVar("M", bound=BaseModel)


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
    def has_manifest(self) -> bool:
        """Whether a stage made it; False for a source and for what is only planned."""
        return self.done and (self.path / MANIFEST).is_file()

    @property
    def manifest(self) -> Manifest:
        """How it was made. Raises InputError for a source and for what is only planned."""
        file = self.path / MANIFEST
        if not self.has_manifest:
            raise InputError(f"{self.path} is no artifact of a store: it has no {MANIFEST}.")
        status = file.stat()
        return _parse_manifest(file, status.st_mtime_ns, status.st_ino)

    @property
    def inputs(self) -> "Inputs":
        """What it was made from, by name; a source that a person brought has lost its place."""
        if not self.has_manifest:
            return {}
        store = self.path.parent
        return {
            name: tuple(Artifact(r.stage, r.fingerprint, store / r.folder) for r in refs)
            for name, refs in self.manifest.inputs.items()
        }

    def get_input(self, name: str) -> "Artifact":
        """Return the one input of this name. Raises InputError if it has none, or several."""
        found = self.get_inputs(name)
        if len(found) != 1:
            known = ", ".join(self.manifest.inputs)
            raise InputError(f"{self.path} has {len(found)} inputs {name!r}. Its inputs: {known}.")
        return found[0]

    def get_inputs(self, name: str) -> tuple["Artifact", ...]:
        """Return all inputs of this name; empty where there is none."""
        return self.inputs.get(name, ())

    def read_settings(self, model: type[M]) -> M:
        """Return the settings that it was made with, as the stage's own class."""
        return self._parse(model, self.manifest.settings)

    def read_stats(self, model: type[M]) -> M:
        """Return what its stage reported, as the stage's own class or as a part of it."""
        return self._parse(model, self.manifest.stats)

    def _parse(self, model: type[M], values: dict[str, JsonValue]) -> M:
        try:
            return model.model_validate(values)
        except ValidationError as exc:
            raise InputError(
                f"{self.path / MANIFEST} does not fit {model.__name__}: "
                f"{exc.errors()[0]['msg']}. Remove its folder and run the recipe again."
            ) from exc


Inputs = Mapping[str, tuple[Artifact, ...]]  # by name; one input is a tuple of one
P = ParamSpec("P")
S = TypeVar("S", bound=BaseModel)
_N_OWN = 3  # parameters of a stage's function that are no inputs: its folder, settings, live


@dataclass(frozen=True, slots=True)
class Stage(Generic[S, P]):
    """A function (out, settings, live, *inputs) -> stats, and what it says of itself.

    The names of its other parameters name its inputs. `version` is that of its meaning, `kind` the
    kind of work, `title` what people read. A function may serve several stages: `named` gives one.
    `plan_requests(planned, inputs)` returns what a paid stage would send, for the plan.
    """

    function: Callable[Concatenate[Path, S, Any, P], BaseModel]
    name: str
    version: int
    kind: WorkKind = WorkKind.NONE
    title: str = ""
    plan_requests: Callable[["Planned", Any], Any] | None = None

    def __post_init__(self) -> None:
        if self.kind is WorkKind.PAID and self.plan_requests is None:
            raise TypeError(
                f"The paid stage {self.name} has no plan_requests, so no plan could include its "
                "cost. Pass a function of bridgekd.stages.query_teacher, or one like it."
            )

    def named(self, name: str, title: str) -> "Stage[S, P]":
        """Return a stage of another name that does the same work."""
        return replace(self, name=name, title=title)

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> Inputs:
        """Return the inputs by name; those that are None or empty are left out."""
        bound = signature(self.function).bind(*[None] * _N_OWN, *args, **kwargs).arguments
        given = list(bound.items())[_N_OWN:]
        inputs = {k: (v,) if isinstance(v, Artifact) else tuple(v or ()) for k, v in given}
        return {name: artifacts for name, artifacts in inputs.items() if artifacts}


def stage(
    version: int,
    kind: WorkKind = WorkKind.NONE,
    title: str = "",
    plan_requests: Callable[["Planned", Any], Any] | None = None,
) -> Callable[[Callable[Concatenate[Path, S, Any, P], BaseModel]], Stage[S, P]]:
    """Marks a function as a stage. Raise `version` by hand when what it means changes."""
    return lambda function: Stage(function, function.__name__, version, kind, title, plan_requests)


class ArtifactMaker(Protocol):
    """What a method needs of a store; a planning store has it too."""

    def make(
        self, stage: Stage[S, P], settings: S, live: object, *args: P.args, **kwargs: P.kwargs
    ) -> Artifact: ...


class Store:
    """Artifacts under one folder. `note` is told when another process holds what is wanted."""

    def __init__(self, folder: Path, note: Callable[[str], None] = lambda text: None) -> None:
        self.folder = folder
        self._note = note
        with translate_disk_errors(folder):
            (folder / ".locks").mkdir(parents=True, exist_ok=True)

    def make(
        self, stage: Stage[S, P], settings: S, live: object, *args: P.args, **kwargs: P.kwargs
    ) -> Artifact:
        """The artifact of this stage, settings and inputs: made now, or found as it was made
        before.
        """
        inputs = stage.bind(*args, **kwargs)
        wanted = plan_artifact(stage, settings, inputs, self.folder)
        if wanted.done:
            return wanted
        with self._locked(wanted.path.name):
            made = replace(wanted, done=True)
            if not made.has_manifest:
                partial = wanted.path.with_name(f"{wanted.path.name}.partial")
                with translate_disk_errors(partial):
                    _clear(partial)
                    started = time.monotonic()
                    stats = stage.function(partial, settings, live, *args, **kwargs)
                    shutil.rmtree(partial / RESUME_DIR)
                    manifest = _describe(partial, stage, settings, inputs, stats, started)
                    write_atomic(partial / MANIFEST, manifest)
                    os.rename(partial, wanted.path)
                    fsync_folder(self.folder)
        return made

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        lock = FileLock(self.folder / ".locks" / f"{name}.lock")
        with translate_disk_errors(self.folder):
            try:
                lock.acquire(timeout=0)
            except Timeout:
                self._note(f"Another process is making {name}; waiting until it is done.")
                lock.acquire()
        try:
            yield
        finally:
            lock.release()


@dataclass(frozen=True, slots=True)
class Planned:
    """How an artifact would be made; `inputs` may be planned themselves."""

    artifact: Artifact
    stage: Stage[Any, Any]
    settings: BaseModel
    inputs: Inputs


class PlanStore:
    """Runs a method without doing anything: artifacts carry fingerprints and whether they already
    exist. `planned` has every one by its folder name, in order.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.planned: dict[str, Planned] = {}

    def make(
        self, stage: Stage[S, P], settings: S, live: object, *args: P.args, **kwargs: P.kwargs
    ) -> Artifact:
        """The artifact as it would be."""
        inputs = stage.bind(*args, **kwargs)
        artifact = plan_artifact(stage, settings, inputs, self.folder)
        self.planned[artifact.path.name] = Planned(artifact, stage, settings, inputs)
        return artifact


def plan_artifact(
    stage: Stage[Any, Any], settings: BaseModel, inputs: Inputs, folder: Path
) -> Artifact:
    """The artifact that this stage with these settings and inputs is, made or not."""
    identity = {
        "stage": stage.name,
        "version": stage.version,
        "settings": settings.model_dump(mode="json"),
        "inputs": {name: [a.fingerprint for a in given] for name, given in inputs.items()},
    }
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = folder / f"{stage.name}-{fingerprint}"
    return Artifact(stage.name, fingerprint, path, (path / MANIFEST).is_file())


def find_ancestors(artifact: Artifact) -> dict[str, Artifact]:
    """Everything `artifact` was made from, itself included, by folder name; without sources."""
    found: dict[str, Artifact] = {}
    todo = [artifact]
    while todo:
        here = todo.pop()
        if here.path.name in found or not here.has_manifest:
            continue
        found[here.path.name] = here
        todo += chain.from_iterable(here.inputs.values())
    return found


def _describe(
    partial: Path,
    stage: Stage[Any, Any],
    settings: BaseModel,
    inputs: Inputs,
    stats: BaseModel,
    started: float,
) -> str:
    """The manifest of the finished work in `partial`, which is on the disk from now on."""
    planned = plan_artifact(stage, settings, inputs, partial.parent)
    manifest = Manifest(
        stage=stage.name,
        version=stage.version,
        kind=stage.kind,
        title=stage.title,
        fingerprint=planned.fingerprint,
        settings=settings.model_dump(mode="json"),
        inputs={name: tuple(map(_refer, given)) for name, given in inputs.items()},
        stats=stats.model_dump(mode="json", exclude_defaults=True),
        seconds=round(time.monotonic() - started, 3),
        libraries=_versions(),
        commit=_commit(),
        content=_hash_folder(partial),
        made_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )
    return json.dumps(manifest.model_dump(mode="json"), indent=1)


def _refer(artifact: Artifact) -> ArtifactRef:
    return ArtifactRef(
        stage=artifact.stage, fingerprint=artifact.fingerprint, folder=artifact.path.name
    )


@lru_cache(maxsize=4096)
def _parse_manifest(file: Path, modified_ns: int, inode: int) -> Manifest:
    """The manifest in `file`, parsed once as long as the file stays the same."""
    try:
        return Manifest.model_validate_json(file.read_bytes())
    except ValidationError as exc:
        raise InputError(
            f"{file} is not a manifest of this version of bridgekd: {exc.errors()[0]['msg']}. "
            "Remove its folder and run the recipe again."
        ) from exc


def _clear(partial: Path) -> None:
    """An empty folder but for what an earlier process left in `unfinished`.

    The folder's name holds settings and inputs, so what is left there belongs to the same work.
    """
    (partial / RESUME_DIR).mkdir(parents=True, exist_ok=True)
    for path in partial.iterdir():
        if path.is_dir() and path.name != RESUME_DIR:
            shutil.rmtree(path)
        elif path.is_file():
            path.unlink()


def _hash_folder(folder: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(str(file.relative_to(folder)).encode())
        with open(file, "rb") as stream:
            digest.update(hashlib.file_digest(stream, "blake2b").digest())
            os.fsync(stream.fileno())  # on disk before the rename says so
    return digest.hexdigest()


@cache
def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
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
