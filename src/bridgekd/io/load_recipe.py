"""Load recipe files (YAML 1.2). Error messages have the line and the most similar known key."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from operator import attrgetter
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, JsonValue, ValidationError

from bridgekd.errors import InputError
from bridgekd.grading.graders import GRADERS
from bridgekd.io.read_yaml import MAX_CHARACTERS, MAX_DEPTH, KeyPath, read_yaml
from bridgekd.io.row_files import translate_utf8_errors
from bridgekd.lm.orders import ORDERS
from bridgekd.messages import format_text, format_value
from bridgekd.paths import resolve_path
from bridgekd.rationales import SELECTORS
from bridgekd.recipe import Recipe
from bridgekd.selection.difficulty import MEASURES
from bridgekd.selection.mixtures import MIXTURES
from bridgekd.selection.strategies import STRATEGIES
from bridgekd.targets import TARGET_FORMATS
from bridgekd.variants import Registry

MethodText = str | dict[str, JsonValue]
Registries = Mapping[str, Registry[Any]]
_REGISTRIES: Registries = {
    "data.answer_type": GRADERS,
    "select.strategy": STRATEGIES,
    "select.difficulty": MEASURES,
    "select.mixture": MIXTURES,
    "student.mixture": MIXTURES,
    "student.selector": SELECTORS,
    "student.target_format": TARGET_FORMATS,
    "student.order": ORDERS,
}
_PATHS = (
    "data.train", "data.test", "teacher.prompt.few_shot", "student.instruction_data",
    "assistant.model", "student.model", "select.embedding_model", "store", "ledger",
)  # fmt: skip


def load_recipe(
    path: Path, overrides: Sequence[str] = (), registries: Registries | None = None
) -> Recipe:
    """Return the recipe in `path` with `section.key=value` overrides.

    Its name defaults to the name of the file. registries: of further variants, by key. Raises
    InputError for a file that cannot be read, broken YAML, an unknown or missing key, a wrong
    value, an unknown variant, and a path that no file can have.
    """
    document = read_yaml(_read_text(path), str(path))
    tree, lines = document.value, document.lines
    if not isinstance(tree, dict):
        raise InputError(f"{path} is not a recipe. Write keys such as data, teacher and budget.")
    for override in overrides:
        _set_key(tree, lines, override)
    try:
        recipe = Recipe.model_validate({"name": path.stem} | tree)
    except ValidationError as exc:
        raise InputError(_format_error(exc, lines, path)) from exc
    for keys in _iter_truth_values(tree):  # pydantic reads `true` as the number 1
        value: object = recipe
        for key in keys:
            value = getattr(value, str(key), None)
        if isinstance(value, int | float) and not isinstance(value, bool):
            place, name = _format_place(lines, keys, path), ".".join(map(str, keys))
            raise InputError(f"{place}: {name}: Give a number instead of a truth value.")
    folder = path.resolve().parent
    for key, registry in {**_REGISTRIES, **(registries or {})}.items():
        try:
            registry.resolve(attrgetter(key)(recipe), folder)
        except InputError as exc:
            raise InputError(f"{_format_place(lines, key, path)}: {exc}") from exc
    for key in _PATHS:
        source = attrgetter(key)(recipe)
        try:
            resolve_path(folder, source or "")
        except InputError as exc:
            raise InputError(f"{_format_place(lines, key, path)}: {key}: {exc}") from exc
    return recipe


@contextmanager
def add_recipe_line(recipe: str | Path | Recipe, overrides: Sequence[str]) -> Iterator[None]:
    """Put the file and the line before the message of an InputError about a key of the recipe."""
    try:
        yield
    except InputError as exc:
        if not exc.key or isinstance(recipe, Recipe):
            raise
        document = read_yaml(_read_text(Path(recipe)), str(recipe))
        assert isinstance(document.value, dict), "it was loaded before"
        for override in overrides:
            _set_key(document.value, document.lines, override)
        place = _format_place(document.lines, exc.key, Path(recipe))
        raise InputError(f"{place}: {exc}", key=exc.key) from exc


def _iter_truth_values(tree: Mapping[str, JsonValue], keys: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield the path of every truth value."""
    for key, value in tree.items():
        if isinstance(value, bool):
            yield (*keys, key)
        elif isinstance(value, dict):
            yield from _iter_truth_values(value, (*keys, key))


def _read_text(path: Path) -> str:
    try:
        with translate_utf8_errors(path), open(path, encoding="utf-8") as file:
            return file.read(MAX_CHARACTERS + 1)
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise InputError(
            f"Cannot read the recipe {path}: {reason}. Pass the path of a YAML file."
        ) from exc


def parse_methods(text: str) -> list[MethodText]:
    """Return the methods of `--arms`, separated by commas: names, files, mappings with options.

    >>> parse_methods("bridge,{name: mentor_kd, n_samples: 5},mine.py")
    ['bridge', {'name': 'mentor_kd', 'n_samples': 5}, 'mine.py']
    """
    where = f"--arms {format_text(text)}"
    methods: list[MethodText] = []
    parsed = read_yaml(f"[{text}]", where).value
    for method in parsed if isinstance(parsed, list) else [parsed]:
        if not isinstance(method, str | dict):
            raise InputError(
                f"{where}: {format_value(method)} is not a method. Pass a name or a .py file."
            )
        methods.append(method)
    return methods


def _set_key(tree: dict[str, JsonValue], lines: dict[KeyPath, int], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise InputError(
            f"--set {format_value(override)}: Write section.key=value, such as budget.queries=5%."
        )
    path = tuple(key.strip().split("."))
    where = f"--set {format_text(key)}"
    if len(path) > MAX_DEPTH:
        raise InputError(f"{where}: More than {MAX_DEPTH} levels of nesting.")
    for depth, section in enumerate(path[:-1], start=1):
        current = tree.get(section)
        if not isinstance(current, dict):
            # The short form of a variant (strategy: hardest) becomes a mapping with its name.
            current = {"name": current} if isinstance(current, str) else {}
            lines.setdefault(path[:depth], 0)
        tree[section] = current
        tree = current
    tree[path[-1]] = read_yaml(value, where).value
    for known in [known for known in lines if known[: len(path)] == path]:
        del lines[known]
    lines[path] = 0


def _format_error(exc: ValidationError, lines: Mapping[KeyPath, int], path: Path) -> str:
    """Return a message about one of the errors, and the number of the others."""
    # A mistyped key is also reported as a missing one. The unknown key explains both.
    first, *others = sorted(exc.errors(), key=lambda error: error["type"] != "extra_forbidden")
    keys = tuple(first["loc"])
    key = ".".join(map(str, keys))
    where = _format_place(lines, keys, path)
    n_others = f" ({len(others)} more errors.)" if others else ""
    if first["type"] == "extra_forbidden":
        return f"{where}: Unknown key {format_value(key)}. {_suggest_key(keys)}{n_others}"
    if first["type"] == "missing":
        return f"{where}: The key {key!r} is missing. Add it.{n_others}"
    value, problem = first["input"], str(first["msg"]).removeprefix("Value error, ").rstrip(".")
    # No message repeats a key, which may be in an address or in place of a variable's name.
    is_shown = isinstance(value, str | int | float) and not {"base_url", "api_key_env"} & {*keys}
    found = f" Found {format_value(value)}." if is_shown else ""
    return f"{where}: {key + ': ' if key else ''}{problem}.{found}{n_others}"


def _format_place(lines: Mapping[KeyPath, int], keys: str | KeyPath, path: Path) -> str:
    """Return the file, and the line of the deepest key that it has. Only --set has no line."""
    known: KeyPath = tuple(keys.split(".")) if isinstance(keys, str) else keys
    while known and known not in lines:
        known = known[:-1]
    line = lines.get(known, 0)
    return f"{path} line {line}" if line else str(path)


def _suggest_key(keys: KeyPath) -> str:
    section: type[BaseModel] = Recipe
    for key in keys[:-1]:
        annotation = section.model_fields[str(key)].annotation
        section = next(
            candidate
            for candidate in (annotation, *get_args(annotation))
            if isinstance(candidate, type) and issubclass(candidate, BaseModel)
        )
    known = list(section.model_fields)
    near = get_close_matches(str(keys[-1]), known, n=1, cutoff=0.5)
    return f"Did you mean {near[0]!r}?" if near else f"Known here: {', '.join(known)}."
