"""Variants: methods, strategies, objectives, graders and transports, one file each.

A kind of variant has one `Registry`. It finds every module of its package that ends in the kind's
constant (for example `STRATEGY`), every plugin that an installed package registers as an entry
point, and every file that a recipe names. A recipe names a variant in one of three ways:

    strategy: hardest
    strategy: {name: hardest, some_option: 3}
    strategy: {file: my_strategy.py, some_option: 3}

A variant is any object with the attributes of `Variant`. What a stage hashes of it is
`VariantSettings`: the name, all options, and the hash of the code when it is not bridgekd's own.
"""

import hashlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cached_property
from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType
from typing import Generic, Protocol, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_serializer,
    model_validator,
)

from bridgekd.errors import InputError


class NoOptions(BaseModel):
    """The options of a variant that has none."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Variant(Protocol):
    """What every variant says of itself; `bridgekd list`, help, reports and docs print it.

    `summary` is one sentence. `paper` is an arXiv number or a citation, "" for our own. `options`
    is a frozen pydantic model that forbids unknown keys.
    """

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def summary(self) -> str: ...
    @property
    def paper(self) -> str: ...
    @property
    def options(self) -> type[BaseModel]: ...


class VariantRef(BaseModel):
    """How a recipe names a variant: by `name` or by `file`, with options beside it.

    >>> VariantRef.model_validate("hardest").name
    'hardest'
    >>> VariantRef.model_validate({"name": "mentor_kd", "n_samples": 3}).options
    {'n_samples': 3}
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = None
    file: str | None = None
    options: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _parse_short_form(cls, value: object) -> object:
        if isinstance(value, VariantRef):
            return value
        if isinstance(value, str):
            return {"name": value}
        if not isinstance(value, Mapping):
            raise ValueError("expected a name, or a mapping with `name` or `file` and the options")
        named = {k: v for k, v in value.items() if k in ("name", "file")}
        if len(named) != 1 or not isinstance(next(iter(named.values())), str):
            raise ValueError("expected exactly one of `name` and `file` beside the options")
        return {**named, "options": {k: v for k, v in value.items() if k not in named}}

    @model_serializer
    def _dump_short_form(self) -> str | dict[str, JsonValue]:
        if self.file is not None:
            return {"file": self.file, **self.options}
        return {"name": self.name, **self.options} if self.options else str(self.name)

    def __str__(self) -> str:
        return self.name or f"{{file: {self.file}}}"


class VariantSettings(BaseModel):
    """What a stage hashes of a variant. `content` is the SHA-256 of code that is not bridgekd's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    options: dict[str, JsonValue] = Field(default_factory=dict)
    content: str | None = None


V = TypeVar("V", bound=Variant)


class Registry(Generic[V]):
    """All variants of one kind.

    kind: the word for messages, such as "strategy". package: where bridgekd's own variants are.
    constant: the module attribute that holds the variant. kind_type: the class of the variant.
    Entry points are read from the group `bridgekd.<last part of package>`.
    """

    def __init__(self, kind: str, package: str, constant: str, kind_type: type[V]) -> None:
        self.kind = kind
        self.package = package
        self.constant = constant
        self.group = f"bridgekd.{package.rpartition('.')[2]}"
        self._type = kind_type
        self._by_content: dict[str, V] = {}
        self._files: dict[str, str] = {}
        self._refs: dict[str, VariantRef] = {}

    @cached_property
    def _own(self) -> dict[str, V]:
        package = import_module(self.package)
        modules = sorted(m.name for m in pkgutil.iter_modules(package.__path__))
        found = (import_module(f"{self.package}.{name}") for name in modules)
        variants = [v for m in found if (v := getattr(m, self.constant, None)) is not None]
        return {variant.name: variant for variant in variants}

    @cached_property
    def _plugins(self) -> dict[str, metadata.EntryPoint]:
        return {point.name: point for point in metadata.entry_points(group=self.group)}

    def __iter__(self) -> Iterator[V]:
        """bridgekd's own variants by module name, then the installed plugins."""
        yield from self._own.values()
        yield from (self._load_plugin(name)[0] for name in self._plugins if name not in self._own)

    def list_names(self) -> list[str]:
        """Return the names of all variants except those in files. This loads no plugin."""
        return list(self._own | self._plugins)

    def get(self, name: str) -> V:
        """Return the variant of this name. InputError names the nearest known one."""
        return self.load(self.resolve(VariantRef(name=name)))

    def resolve(self, ref: VariantRef, folder: Path = Path()) -> VariantSettings:
        """Return what a stage hashes of the variant that a recipe names, with all its options.

        A relative `file` is relative to `folder`. Raises InputError for an unknown name or option,
        a wrong value, and a file that cannot be loaded or has no such constant.
        """
        variant, content = self._find(ref, folder)
        try:
            options = variant.options.model_validate(ref.options)
        except ValidationError as exc:
            raise InputError(_describe_error(f"{self.kind} {ref}", variant, exc)) from exc
        if content is not None:
            self._by_content[content] = variant
            self._refs[content] = _make_absolute(ref, folder)
        dump = options.model_dump(mode="json")
        return VariantSettings(name=variant.name, options=dump, content=content)

    def load(self, settings: VariantSettings) -> V:
        """Return the variant itself; one in a file must have been resolved in this process."""
        if settings.content is None:
            return self._find(VariantRef(name=settings.name), Path())[0]
        if settings.content not in self._by_content and settings.name in self._plugins:
            variant, content = self._load_plugin(settings.name)
            self._by_content[content] = variant
        try:
            return self._by_content[settings.content]
        except KeyError as exc:
            raise InputError(
                f"The {self.kind} {settings.name!r} is code from outside bridgekd that is not "
                "loaded. Use the recipe that names its file."
            ) from exc

    def get_ref(self, settings: VariantSettings) -> VariantRef:
        """Return the reference by which another process of this machine resolves the same variant.

        A file is named by its absolute path.
        """
        if settings.content is not None:
            known = self._refs[settings.content]
            return known.model_copy(update={"options": settings.options})
        return VariantRef.model_validate({"name": settings.name, **settings.options})

    def find_file(self, settings: VariantSettings) -> str | None:
        """Return the file that the variant was loaded from; None if it is not in a file."""
        return self._files.get(settings.content or "")

    def parse_options(self, settings: VariantSettings) -> BaseModel:
        """Return the options as the variant's own model."""
        return self.load(settings).options.model_validate(settings.options)

    def _find(self, ref: VariantRef, folder: Path) -> tuple[V, str | None]:
        if ref.file is not None:
            return self._load_file(folder / Path(ref.file).expanduser())
        name = str(ref.name)
        if name in self._own:
            return self._own[name], None
        if name in self._plugins:
            return self._load_plugin(name)
        known = self.list_names()
        near = get_close_matches(name, known, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."
        raise InputError(f"Unknown {self.kind} {name!r}. {hint}")

    def _load_plugin(self, name: str) -> tuple[V, str]:
        point = self._plugins[name]
        try:
            variant = point.load()
        except (ImportError, AttributeError) as exc:
            raise InputError(
                f"The {self.kind} {name!r} is registered as {point.value}, which cannot be "
                f"imported: {exc}. Reinstall or remove that package."
            ) from exc
        source = Path(str(import_module(point.module).__file__))
        return self._check_type(variant, point.value), _hash_code(source.read_bytes())

    def _load_file(self, path: Path) -> tuple[V, str]:
        try:
            code = path.read_bytes()
        except OSError as exc:
            raise InputError(f"Cannot read the {self.kind} file {path}: {exc.strerror}.") from exc
        content = _hash_code(code)
        self._files[content] = str(path.resolve())
        if content in self._by_content:
            return self._by_content[content], content
        module = _import_file(path, f"bridgekd_file_{content[:16]}", self.kind)
        variant = getattr(module, self.constant, None)
        return self._check_type(variant, f"{path}: {self.constant}"), content

    def _check_type(self, variant: object, where: str) -> V:
        if not isinstance(variant, self._type):
            raise InputError(
                f"{where} is not a {self._type.__name__}. A {self.kind} file ends in "
                f"{self.constant} = {self._type.__name__}(...)."
            )
        return variant


def _make_absolute(ref: VariantRef, folder: Path) -> VariantRef:
    if ref.file is None:
        return ref
    path = (folder / Path(ref.file).expanduser()).resolve()
    return ref.model_copy(update={"file": str(path)})


def _hash_code(code: bytes) -> str:
    return hashlib.sha256(code).hexdigest()


def _import_file(path: Path, name: str, kind: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is not a Python file. Name a .py file as the {kind}.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up here
    try:
        spec.loader.exec_module(module)
    except Exception as exc:  # a user's module may raise anything
        del sys.modules[name]
        raise InputError(f"{path} cannot be imported: {type(exc).__name__}: {exc}.") from exc
    return module


def _describe_error(what: str, variant: Variant, exc: ValidationError) -> str:
    first = sorted(exc.errors(), key=lambda e: e["type"] != "extra_forbidden")[0]
    key = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        known = list(variant.options.model_fields)
        near = get_close_matches(key, known, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known) or 'none'}."
        return f"{what}: unknown option {key!r}. {hint}"
    if first["type"] == "missing":
        return f"{what}: the option {key!r} is missing. Add it."
    message = str(first["msg"]).removeprefix("Value error, ")
    where = f"option {key!r}: " if key else ""
    return f"{what}: {where}{message}, found {first['input']!r}."
