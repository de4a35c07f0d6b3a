"""Load recipe files (YAML 1.2). Error messages have the line and the most similar known key."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, JsonValue, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from bridgekd.errors import InputError
from bridgekd.grading.graders import GRADERS
from bridgekd.io.row_files import translate_utf8_errors
from bridgekd.recipe import Recipe
from bridgekd.selection.difficulty import MEASURES
from bridgekd.selection.strategies import STRATEGIES
from bridgekd.variants import Registry

KeyPath = tuple[str | int, ...]
MethodText = str | dict[str, JsonValue]
_REGISTRIES: dict[tuple[str, str], Registry[Any]] = {
    ("data", "answer_type"): GRADERS,
    ("select", "strategy"): STRATEGIES,
    ("select", "difficulty"): MEASURES,
}


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe in `path` with `section.key=value` overrides.

    Its name defaults to the name of the file. Raises InputError for a file that cannot be read,
    broken YAML, an unknown or missing key, a wrong value and an unknown variant.
    """
    try:
        with translate_utf8_errors(path):
            text = path.read_text(encoding="utf-8")
    except OSError as exc:
        raise InputError(
            f"Cannot read the recipe {path}: {exc.strerror}. Pass the path of a YAML file."
        ) from exc
    tree = _parse_yaml(text, str(path))
    if not isinstance(tree, CommentedMap):
        raise InputError(f"{path} is not a recipe. Write keys such as data, teacher and budget.")
    for override in overrides:
        _set_key(tree, override)
    tree.setdefault("name", path.stem)
    try:
        recipe = Recipe.model_validate(_convert_to_plain(tree))
    except ValidationError as exc:
        raise InputError(_format_error(exc, tree, path)) from exc
    for keys, registry in _REGISTRIES.items():
        section, key = keys
        try:
            registry.resolve(getattr(getattr(recipe, section), key), path.parent)
        except InputError as exc:
            raise InputError(f"{_format_place(tree, keys, path)}: {exc}") from exc
    return recipe


def parse_methods(text: str) -> list[MethodText]:
    """Return the methods of `--arms`, separated by commas: names, files, mappings with options.

    >>> parse_methods("bridge,{name: mentor_kd, n_samples: 5},mine.py")
    ['bridge', {'name': 'mentor_kd', 'n_samples': 5}, 'mine.py']
    """
    methods: list[MethodText] = _convert_to_plain(_parse_yaml(f"[{text}]", f"--arms {text}"))
    for method in methods:
        if not isinstance(method, str | dict):
            raise InputError(
                f"--arms {text}: {method!r} is not a method. Pass a name or a .py file."
            )
    return methods


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return YAML(typ="rt", pure=True).load(text)
    except MarkedYAMLError as exc:
        line = f" line {exc.problem_mark.line + 1}" if exc.problem_mark else ""
        raise InputError(f"{where}{line}: Broken YAML: {exc.problem}. Fix it.") from exc
    except YAMLError as exc:
        raise InputError(f"{where}: Broken YAML: {exc}. Fix it.") from exc


def _set_key(tree: CommentedMap, override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set {override!r}: Write section.key=value, such as budget.queries=5%.")
    *sections, last = key.strip().split(".")
    for section in sections:
        current = tree.get(section)
        if not isinstance(current, dict):
            # The short form of a variant (strategy: hardest) becomes a mapping with its name.
            tree[section] = CommentedMap({"name": current} if isinstance(current, str) else {})
        tree = tree[section]
    tree[last] = _parse_yaml(value, f"--set {key}")


def _convert_to_plain(value: Any) -> Any:
    """Return a YAML value without the loader's own types, which pydantic and JSON do not know."""
    if isinstance(value, dict):
        return {str(k): _convert_to_plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_convert_to_plain(v) for v in value]
    for plain_type in (bool, int, float, str):
        if isinstance(value, plain_type):
            return plain_type(value)
    return value


def _format_error(exc: ValidationError, tree: CommentedMap, path: Path) -> str:
    """Return a message about one of the errors, and the number of the others."""
    # A mistyped key is also reported as a missing one. The unknown key explains both.
    first, *others = sorted(exc.errors(), key=lambda error: error["type"] != "extra_forbidden")
    keys = tuple(first["loc"])
    where, key = _format_place(tree, keys, path), ".".join(map(str, keys))
    n_others = f" ({len(others)} more errors.)" if others else ""
    if first["type"] == "extra_forbidden":
        return f"{where}: Unknown key {key!r}. {_suggest_key(keys)}{n_others}"
    if first["type"] == "missing":
        return f"{where}: The key {key!r} is missing. Add it.{n_others}"
    value, problem = first["input"], str(first["msg"]).removeprefix("Value error, ").rstrip(".")
    # An address may contain a key, which no message repeats.
    is_shown = isinstance(value, str | int | float) and keys[-1:] != ("base_url",)
    found = f" Found {value!r}." if is_shown else ""
    return f"{where}: {key + ': ' if key else ''}{problem}.{found}{n_others}"


def _format_place(tree: CommentedMap, keys: KeyPath, path: Path) -> str:
    """Return the file, and the line of the deepest key that it has. Only --set has no line."""
    line = None
    for key in keys:
        if not isinstance(tree, CommentedMap) or key not in tree:
            break
        try:
            line = tree.lc.key(key)[0] + 1
        except (KeyError, TypeError, AttributeError):
            return str(path)
        tree = tree[key]
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
