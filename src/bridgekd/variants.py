"""Variants: methods, strategies, difficulties, mixtures, objectives, graders and transports, one
file each.

Each type of variant has a `Registry`. It finds the modules of its package that define the constant
of the type (for example `STRATEGY`), the entry points of installed packages, and the file that a
recipe names. A recipe names a variant in one of three ways:

    strategy: hardest
    strategy: {name: hardest, some_option: 3}
    strategy: {file: my_strategy.py, some_option: 3}

A stage hashes the `VariantSettings` of a variant: its name, all options, and, if it is not part of
bridgekd, its code.
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
from bridgekd.messages import format_value
from bridgekd.paths import resolve_path


class NoOptions(BaseModel):
    """The options of a variant without options."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Variant(Protocol):
    """What every variant has. `bridgekd list`, help texts and reports print it.

    summary: one sentence. paper: an arXiv number or a citation, or "". options: a frozen pydantic
    model that forbids unknown keys.
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
    """A variant in a recipe: its `name` or its `file`, and its options.

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
            raise ValueError("expected a name, or a mapping with `name` or `file` and options")
        source = {k: v for k, v in value.items() if k in ("name", "file")}
        if len(source) != 1 or not isinstance(next(iter(source.values())), str):
            raise ValueError("expected exactly one of `name` and `file`")
        return {**source, "options": {k: v for k, v in value.items() if k not in source}}

    @model_serializer
    def _dump_short_form(self) -> str | dict[str, JsonValue]:
        if self.file is None and not self.options:
            return str(self.name)
        source = {"name": self.name} if self.file is None else {"file": self.file}
        return {**source, **self.options}

    def __str__(self) -> str:
        return self.name or f"{{file: {self.file}}}"


class VariantSettings(BaseModel):
    """What a stage hashes of a variant. `content` is the SHA-256 of code outside bridgekd."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    options: dict[str, JsonValue] = Field(default_factory=dict)
    content: str | None = None


V = TypeVar("V", bound=Variant)


class Registry(Generic[V]):
    """All variants of one type.

    noun: the word for messages, such as "strategy". package: the modules of bridgekd's own
    variants. constant: the module attribute that holds a variant of class `variant_class`. Entry
    points are in the group `bridgekd.<last part of package>`.
    """

    def __init__(self, noun: str, package: str, constant: str, variant_class: type[V]) -> None:
        self.noun = noun
        self.package = package
        self.constant = constant
        self._class = variant_class
        self._by_content: dict[str, V] = {}
        self._files: dict[str, str] = {}

    @cached_property
    def _own(self) -> dict[str, V]:
        package = import_module(self.package)
        names = sorted(m.name for m in pkgutil.iter_modules(package.__path__))
        modules = (import_module(f"{self.package}.{name}") for name in names)
        variants = (getattr(module, self.constant, None) for module in modules)
        return {variant.name: variant for variant in variants if variant is not None}

    @cached_property
    def _plugins(self) -> dict[str, metadata.EntryPoint]:
        group = f"bridgekd.{self.package.rpartition('.')[2]}"
        return {point.name: point for point in metadata.entry_points(group=group)}

    def __iter__(self) -> Iterator[V]:
        """Yield bridgekd's own variants by module name, then the installed plugins."""
        yield from self._own.values()
        yield from (self._load_plugin(name)[0] for name in self._plugins if name not in self._own)

    def list_names(self) -> list[str]:
        """Return the names of all variants except those in files. This loads no plugin."""
        return list(self._own | self._plugins)

    def get(self, name: str) -> V:
        """Return the variant of this name, or raise InputError with the nearest known name."""
        return self.load(self.resolve(VariantRef(name=name)))

    def resolve(self, ref: VariantRef, folder: Path = Path()) -> VariantSettings:
        """Return the settings of the variant that a recipe names, with the defaults of its options.

        A `file` may be relative to `folder`. Raises InputError for an unknown name or option, a
        wrong value, and a file that cannot be imported or does not define the constant.
        """
        variant, content = self._find(ref, folder)
        try:
            options = variant.options.model_validate(ref.options)
        except ValidationError as exc:
            raise InputError(_describe_error(f"{self.noun} {ref}", variant, exc)) from exc
        dump = options.model_dump(mode="json")
        return VariantSettings(name=variant.name, options=dump, content=content)

    def load(self, settings: VariantSettings) -> V:
        """Return the variant. This process must have resolved a variant that is in a file."""
        if settings.content is None:
            return self._find(VariantRef(name=settings.name), Path())[0]
        if settings.content not in self._by_content and settings.name in self._plugins:
            self._load_plugin(settings.name)
        try:
            return self._by_content[settings.content]
        except KeyError as exc:
            raise InputError(
                f"The {self.noun} {settings.name!r} is code outside bridgekd that is not loaded. "
                "Use the recipe that names its file."
            ) from exc

    def get_ref(self, settings: VariantSettings) -> VariantRef:
        """Return a reference that another process on this machine can resolve."""
        file = self.find_file(settings)
        source = {"name": settings.name} if file is None else {"file": file}
        return VariantRef.model_validate({**source, **settings.options})

    def find_file(self, settings: VariantSettings) -> str | None:
        """Return the absolute path of the variant's file; None unless a recipe names a file."""
        return self._files.get(settings.content or "")

    def parse_options(self, settings: VariantSettings) -> BaseModel:
        """Return the options as the options model of the variant."""
        return self.load(settings).options.model_validate(settings.options)

    def _find(self, ref: VariantRef, folder: Path) -> tuple[V, str | None]:
        if ref.file is not None:
            return self._load_file(resolve_path(folder, ref.file))
        name = str(ref.name)
        if name in self._own:
            return self._own[name], None
        if name in self._plugins:
            return self._load_plugin(name)
        known = self.list_names()
        near = get_close_matches(name, known, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."
        raise InputError(f"Unknown {self.noun} {format_value(name)}. {hint}")

    def _load_plugin(self, name: str) -> tuple[V, str]:
        point = self._plugins[name]
        try:
            variant = point.load()
        except (ImportError, AttributeError) as exc:
            raise InputError(
                f"The {self.noun} {name!r} is registered as {point.value}, which cannot be "
                f"imported: {exc}. Reinstall or remove that package."
            ) from exc
        variant = self._check_type(variant, point.value)
        if variant.name != name:
            raise InputError(
                f"The {self.noun} {point.value} has the name {variant.name!r}, but is registered "
                f"as {name!r}. Use the same name in both places."
            )
        content = _hash_code(Path(str(import_module(point.module).__file__)).read_bytes())
        self._by_content[content] = variant
        return variant, content

    def _load_file(self, path: Path) -> tuple[V, str]:
        try:
            code = path.read_bytes()
        except OSError as exc:
            raise InputError(f"Cannot read the {self.noun} file {path}: {exc.strerror}.") from exc
        content = _hash_code(code)
        self._files[content] = str(path.resolve())
        if content not in self._by_content:
            module = _import_file(path, f"bridgekd_file_{content[:16]}", self.noun)
            variant = getattr(module, self.constant, None)
            self._by_content[content] = self._check_type(variant, f"{path}: {self.constant}")
        return self._by_content[content], content

    def _check_type(self, variant: object, where: str) -> V:
        if not isinstance(variant, self._class):
            raise InputError(
                f"{where} is not a {self._class.__name__}. A {self.noun} file ends in "
                f"{self.constant} = {self._class.__name__}(...)."
            )
        return variant


def _hash_code(code: bytes) -> str:
    return hashlib.sha256(code).hexdigest()


def _import_file(path: Path, name: str, noun: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is not a Python file. Name a .py file as the {noun}.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look up their module here
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
        return f"{what}: unknown option {format_value(key)}. {hint}"
    if first["type"] == "missing":
        return f"{what}: the option {format_value(key)} is missing. Add it."
    message = str(first["msg"]).removeprefix("Value error, ")
    where = f"option {format_value(key)}: " if key else ""
    return f"{what}: {where}{message}, found {format_value(first['input'])}."
