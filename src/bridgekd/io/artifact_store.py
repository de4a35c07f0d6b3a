"""The store: a folder of artifacts that are named by how they were made. What exists is done.

A stage works in `<stage>-<fingerprint>.partial`. Its manifest is written and flushed to the disk
last; then one rename makes the folder an artifact. A process that is killed before leaves nothing
that looks like a result. A lock, which the operating system releases when its process ends, keeps
two processes from making the same artifact.
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
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from bridgekd.errors import InputError
from bridgekd.io.damage import translate_damage
from bridgekd.io.disk import (
    fsync_folder,
    make_private_folder,
    translate_disk_errors,
    write_atomic,
)
from bridgekd.io.source_hash import check_source
from bridgekd.throughput import WorkKind

MANIFEST = "manifest.json"
RESUME_DIR = "unfinished"  # folder in which a stage saves its progress
LIBRARIES = ("bridgekd", "numpy", "pyarrow", "openai", "torch", "transformers", "peft")


class Stats(BaseModel):
    """What a stage reports about its work (counts, spend, speed).

    A reader may use a class with fewer fields. Further fields are ignored.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")


class ArtifactRef(BaseModel):
    """An input in a manifest. `folder` is the name of its folder in the same store."""

    model_config = ConfigDict(frozen=True)

    stage: str
    fingerprint: str
    folder: str


class Manifest(BaseModel):
    """How an artifact was made. `inputs` has the parameter names of the stage function as keys."""

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
    """A folder of the store, or a source from the user (a file, a model folder, a Hub id).

    `done` is False if the artifact is only planned.
    """

    stage: str
    fingerprint: str
    path: Path
    done: bool = True

    @property
    def has_manifest(self) -> bool:
        """Whether a stage made it. False for a source and for a planned artifact."""
        return self.done and (self.path / MANIFEST).is_file()

    @property
    def manifest(self) -> Manifest:
        """How it was made. Raises InputError for a source and for a planned artifact."""
        file = self.path / MANIFEST
        if not self.has_manifest:
            raise InputError(f"{self.path} is not an artifact of a store: it has no {MANIFEST}.")
        status = file.stat()
        return _parse_manifest(file, status.st_mtime_ns, status.st_ino)

    @property
    def inputs(self) -> "Inputs":
        """The artifacts that it was made from, by name. The path of a source is unknown."""
        if not self.has_manifest:
            return {}
        store = self.path.parent
        return {
            name: tuple(Artifact(r.stage, r.fingerprint, store / r.folder) for r in refs)
            for name, refs in self.manifest.inputs.items()
        }

    def get_input(self, name: str) -> "Artifact":
        """Return the one input of this name. Raises InputError if there is not exactly one."""
        artifacts = self.get_inputs(name)
        if len(artifacts) != 1:
            known = ", ".join(self.manifest.inputs)
            raise InputError(
                f"{self.path} has {len(artifacts)} inputs {name!r}. Its inputs: {known}."
            )
        return artifacts[0]

    def get_inputs(self, name: str) -> tuple["Artifact", ...]:
        """Return all inputs of this name."""
        return self.inputs.get(name, ())

    def check_unchanged(self) -> None:
        """Raise InputError if it is a source that is not as it was when the run hashed it.

        A stage calls this after it has read a source: its artifact has the fingerprint of the run.
        """
        check_source(self.path, self.fingerprint)

    def read_settings(self, model: type[M]) -> M:
        """Return the settings that it was made with, as the stage's class."""
        return self._parse(model, self.manifest.settings)

    def read_stats(self, model: type[M]) -> M:
        """Return what its stage reported, as the stage's class or one with fewer fields."""
        return self._parse(model, self.manifest.stats)

    def _parse(self, model: type[M], values: dict[str, JsonValue]) -> M:
        try:
            return model.model_validate(values)
        except ValidationError as exc:
            raise InputError(
                f"{self.path / MANIFEST} does not fit {model.__name__}: {exc.errors()[0]['msg']}. "
                f"Remove the folder {self.path} and run the recipe again."
            ) from exc


Inputs = Mapping[str, tuple[Artifact, ...]]  # by name; one input is a tuple of one
P = ParamSpec("P")
S = TypeVar("S", bound=BaseModel)
_N_FIXED = 3  # parameters of a stage function that are not inputs: folder, settings, run context


@dataclass(frozen=True, slots=True)
class Stage(Generic[S, P]):
    """A stage function (output_dir, settings, ctx, *inputs) -> stats, with its description.

    The inputs have the names of the parameters. `kind` is the type of work, and `title` is for
    people. `plan_requests(planned, inputs)` returns what a paid stage would send. `with_name`
    returns a stage of another name with the same function.
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

    def with_name(self, name: str, title: str) -> "Stage[S, P]":
        """Return a stage with another name and the same function."""
        return replace(self, name=name, title=title)

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> Inputs:
        """Return the inputs by name, without those that are None or empty."""
        bound = signature(self.function).bind(*[None] * _N_FIXED, *args, **kwargs).arguments
        arguments = list(bound.items())[_N_FIXED:]
        inputs = {k: (v,) if isinstance(v, Artifact) else tuple(v or ()) for k, v in arguments}
        return {name: artifacts for name, artifacts in inputs.items() if artifacts}


def stage(
    version: int,
    kind: WorkKind = WorkKind.NONE,
    title: str = "",
    plan_requests: Callable[["Planned", Any], Any] | None = None,
) -> Callable[[Callable[Concatenate[Path, S, Any, P], BaseModel]], Stage[S, P]]:
    """Return a decorator that makes a function a stage. Raise `version` if its meaning changes."""
    return lambda function: Stage(function, function.__name__, version, kind, title, plan_requests)


class Store:
    """Artifacts in one folder. `note` gets a message while another process makes an artifact."""

    def __init__(self, folder: Path, note: Callable[[str], None] = lambda text: None) -> None:
        self.folder = folder
        self._note = note
        with translate_disk_errors(folder):
            make_private_folder(folder)
            (folder / ".locks").mkdir(exist_ok=True)

    def make(
        self, stage: Stage[S, P], settings: S, ctx: object, *args: P.args, **kwargs: P.kwargs
    ) -> Artifact:
        """Return the artifact of this stage, settings and inputs. Make it if it does not exist."""
        inputs = stage.bind(*args, **kwargs)
        artifact = plan_artifact(stage, settings, inputs, self.folder)
        if artifact.done:
            return artifact
        with self._lock(artifact.path.name):
            artifact = replace(artifact, done=True)
            if artifact.has_manifest:  # made by another process in the meantime
                return artifact
            if artifact.path.exists():
                raise InputError(
                    f"{artifact.path} is damaged: it has no {MANIFEST}. Remove this folder and run "
                    "the recipe again. Paid answers are in the ledger."
                )
            partial = artifact.path.with_name(f"{artifact.path.name}.partial")
            with translate_disk_errors(partial):
                _clear_partial(partial)
                for source in chain.from_iterable(inputs.values()):
                    source.check_unchanged()
                started = time.monotonic()
                stats = stage.function(partial, settings, ctx, *args, **kwargs)
                shutil.rmtree(partial / RESUME_DIR)
                manifest = Manifest(
                    stage=stage.name,
                    version=stage.version,
                    kind=stage.kind,
                    title=stage.title,
                    fingerprint=artifact.fingerprint,
                    settings=settings.model_dump(mode="json"),
                    inputs={name: tuple(map(_refer_to, group)) for name, group in inputs.items()},
                    stats=stats.model_dump(mode="json", exclude_defaults=True),
                    seconds=round(time.monotonic() - started, 3),
                    libraries=_read_versions(),
                    commit=_read_commit(),
                    content=_sync_and_hash(partial),
                    made_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                )
                text = json.dumps(manifest.model_dump(mode="json"), indent=1)
                write_atomic(partial / MANIFEST, text)
                os.rename(partial, artifact.path)
                fsync_folder(self.folder)
        return artifact

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
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
    """How an artifact would be made. Its inputs may be planned, too."""

    artifact: Artifact
    stage: Stage[Any, Any]
    settings: BaseModel
    inputs: Inputs


class PlanStore:
    """A store that makes nothing. Its artifacts have a fingerprint and state whether they exist.

    `planned` has them by folder name, in the order of the method.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.planned: dict[str, Planned] = {}

    def make(
        self, stage: Stage[S, P], settings: S, ctx: object, *args: P.args, **kwargs: P.kwargs
    ) -> Artifact:
        """Return the artifact that would be made."""
        inputs = stage.bind(*args, **kwargs)
        artifact = plan_artifact(stage, settings, inputs, self.folder)
        self.planned[artifact.path.name] = Planned(artifact, stage, settings, inputs)
        return artifact


def plan_artifact(
    stage: Stage[Any, Any], settings: BaseModel, inputs: Inputs, folder: Path
) -> Artifact:
    """Return the artifact of a stage with these settings and inputs. It may not exist yet."""
    identity = {
        "stage": stage.name,
        "version": stage.version,
        "settings": settings.model_dump(mode="json"),
        "inputs": {name: [a.fingerprint for a in group] for name, group in inputs.items()},
    }
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = folder / f"{stage.name}-{fingerprint}"
    return Artifact(stage.name, fingerprint, path, (path / MANIFEST).is_file())


def find_ancestors(artifact: Artifact) -> dict[str, Artifact]:
    """Return `artifact` and all artifacts that it was made from, by folder name. No sources."""
    ancestors: dict[str, Artifact] = {}
    todo = [artifact]
    while todo:
        current = todo.pop()
        if current.path.name not in ancestors and current.has_manifest:
            ancestors[current.path.name] = current
            todo += chain.from_iterable(current.inputs.values())
    return ancestors


def _refer_to(artifact: Artifact) -> ArtifactRef:
    return ArtifactRef(
        stage=artifact.stage, fingerprint=artifact.fingerprint, folder=artifact.path.name
    )


@lru_cache(maxsize=4096)
def _parse_manifest(file: Path, modified_ns: int, inode: int) -> Manifest:
    """Return the manifest in a file. It is parsed again only if the file has changed."""
    with translate_damage(file):
        return Manifest.model_validate_json(file.read_bytes())


def _clear_partial(partial: Path) -> None:
    """Create or empty the folder, but keep the progress of an earlier process in RESUME_DIR.

    The progress belongs to the same work, because the fingerprint is part of the folder's name.
    """
    make_private_folder(partial)
    (partial / RESUME_DIR).mkdir(exist_ok=True)
    for path in partial.iterdir():
        if path.is_dir() and path.name != RESUME_DIR:
            shutil.rmtree(path)
        elif path.is_file():
            path.unlink()


def _sync_and_hash(folder: Path) -> str:
    """Flush all files of a folder to the disk and return the hash of their names and contents."""
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(str(file.relative_to(folder)).encode())
        with open(file, "rb") as stream:
            digest.update(hashlib.file_digest(stream, "blake2b").digest())
            os.fsync(stream.fileno())
    return digest.hexdigest()


@cache
def _read_versions() -> dict[str, str]:
    versions = {}
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


@cache
def _read_commit() -> str | None:
    """Return the commit of this package's checkout; None for an installed package."""
    command = ["git", "-C", str(Path(__file__).resolve().parent), "rev-parse", "HEAD"]
    try:
        return subprocess.check_output(
            command, stderr=subprocess.DEVNULL, text=True, timeout=10
        ).strip()
    except (OSError, subprocess.SubprocessError):
        return None
