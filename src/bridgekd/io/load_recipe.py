"""Recipe files: YAML 1.2 in, a Recipe out; complaints have the line and the nearest known key."""

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
    """The recipe in `path` with `section.key=value` overrides; its name defaults to the file's."""
    try:
        with translate_utf8_errors(path):
            text = path.read_text(encoding="utf-8")
    except OSError as exc:
        raise InputError(
            f"cannot read the recipe {path}: {exc.strerror}; give the path of a YAML file"
        ) from exc
    tree = _parse(text, str(path))
    if not isinstance(tree, CommentedMap):
        raise InputError(f"{path} is no recipe: expected keys such as data, teacher, budget")
    for override in overrides:
        _override(tree, override)
    tree.setdefault("name", path.stem)
    try:
        recipe = Recipe.model_validate(_plain(tree))
    except ValidationError as exc:
        raise InputError(_format_error(exc, tree, path)) from exc
    _check_variants(recipe, tree, path)
    return recipe


def _check_variants(recipe: Recipe, tree: CommentedMap, path: Path) -> None:
    for (section, key), registry in _REGISTRIES.items():
        try:
            registry.resolve(getattr(getattr(recipe, section), key), path.parent)
        except InputError as exc:
            line = _line(tree, (section, key))
            raise InputError(f"{path}{f' line {line}' if line else ''}: {exc}") from exc


def parse_methods(text: str) -> list[MethodText]:
    """Return what stands between the commas of --arms: names, files, or mappings with options.

    >>> parse_methods("bridge,{name: mentor_kd, n_samples: 5},mine.py")
    ['bridge', {'name': 'mentor_kd', 'n_samples': 5}, 'mine.py']
    """
    found: list[MethodText] = _plain(_parse(f"[{text}]", f"--arms {text}"))
    for method in found:
        if not isinstance(method, str | dict):
            raise InputError(f"--arms {text}: {method!r} is no method. Write a name or a .py file.")
    return found


def _parse(text: str, where: str) -> Any:
    try:
        return YAML(typ="rt", pure=True).load(text)
    except MarkedYAMLError as exc:
        line = f" line {exc.problem_mark.line + 1}" if exc.problem_mark else ""
        raise InputError(f"{where}{line}: broken YAML, {exc.problem}") from exc
    except YAMLError as exc:
        raise InputError(f"{where}: broken YAML, {exc}") from exc


def _override(tree: CommentedMap, override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set {override!r}: write section.key=value, such as budget.queries=5%")
    *sections, last = key.strip().split(".")
    here: Any = tree
    for section in sections:
        if not isinstance(here.get(section), dict):
            named = {"name": here[section]} if isinstance(here.get(section), str) else {}
            here[section] = CommentedMap(named)
        here = here[section]
    here[last] = _parse(value, f"--set {key}")


def _plain(value: Any) -> Any:
    """Without the loader's own types: what pydantic and JSON know."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def _format_error(exc: ValidationError, tree: CommentedMap, path: Path) -> str:
    """The first complaint in one sentence; how many more there are."""
    unknown_first = sorted(exc.errors(), key=lambda e: e["type"] != "extra_forbidden")
    first, *more = unknown_first  # a mistyped key also shows as a missing one
    where = tuple(first["loc"])
    key = ".".join(map(str, where))
    line = _line(tree, where)
    at = f"{path} line {line}: " if line else f"{path}: "
    rest = f" ({len(more)} more after this one)" if more else ""
    if first["type"] == "extra_forbidden":
        return f"{at}unknown key {key!r}{_suggest_key(where)}{rest}"
    if first["type"] == "missing":
        return f"{at}the key {key!r} is missing; add it{rest}"
    value = first["input"]
    may_hold_a_key = where[-1:] == ("base_url",)
    shown = f", found {value!r}" if isinstance(value, str | int | float) else ""
    shown = "" if may_hold_a_key else shown
    problem = str(first["msg"]).removeprefix("Value error, ")
    return f"{at}{key}: {problem}{shown if repr(value) not in problem else ''}{rest}"


def _line(tree: Any, where: KeyPath) -> int | None:
    """The line of the deepest part of `where` that the file holds; None for what came from --set
    alone.
    """
    line = None
    for part in where:
        if not isinstance(tree, CommentedMap) or part not in tree:
            break
        try:
            line = tree.lc.key(part)[0] + 1
        except (KeyError, TypeError, AttributeError):
            return None
        tree = tree[part]
    return line


def _suggest_key(where: KeyPath) -> str:
    section: type[BaseModel] | None = Recipe
    for part in where[:-1]:
        section = _section(section, str(part))
    known = list(section.model_fields) if section else []
    near = get_close_matches(str(where[-1]), known, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known here: {', '.join(known)}"


def _section(parent: type[BaseModel] | None, key: str) -> type[BaseModel] | None:
    if parent is None or key not in parent.model_fields:
        return None
    annotation = parent.model_fields[key].annotation
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None
