"""The generated parts of the documentation site, from the code; mkdocs.yml names this file.

A page has a line `<!-- generate: NAME -->`. When the site is built, this line becomes the text that
the function for NAME returns, so no table of the reference is written by hand. Links to files of
the repository that are no pages become plain text, after a check that the file exists.
"""

import inspect
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

import bridgekd
from bridgekd import errors, recipe
from bridgekd.cli.main import app
from bridgekd.grading.graders import GRADERS
from bridgekd.lm.objectives import OBJECTIVES
from bridgekd.lm.orders import ORDERS
from bridgekd.methods import METHODS
from bridgekd.rationales import SELECTORS
from bridgekd.recipe import Recipe
from bridgekd.selection.difficulty import MEASURES
from bridgekd.selection.mixtures import MIXTURES
from bridgekd.selection.strategies import STRATEGIES
from bridgekd.targets import TARGET_FORMATS
from bridgekd.teacher.transports import TRANSPORTS
from bridgekd.variants import Registry, Variant, VariantRef

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
TEMPLATE = ROOT / "src" / "bridgekd" / "cli" / "recipe_template.yaml"
PLACEHOLDER = re.compile(r"^<!-- generate: (\w+) -->$", re.MULTILINE)
ATTRIBUTE = re.compile(r"^    (\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)
LINK = re.compile(r"\[([^\]\n]+)\]\(([^)\s]+)\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fill in the generated parts of a page; mkdocs calls this for every page."""
    text = PLACEHOLDER.sub(lambda match: GENERATORS[match[1]](), markdown)
    folder = (DOCS / page.file.src_uri).parent
    return LINK.sub(lambda match: _replace_outside_link(match, folder), text)


def _replace_outside_link(match: re.Match[str], folder: Path) -> str:
    """Return the link, or only its text if it leads to a file outside docs/."""
    text, target = match.groups()
    if target.startswith(("http", "#", "mailto:")):
        return match[0]
    path = (folder / target.partition("#")[0]).resolve()
    if path.is_relative_to(DOCS):
        return match[0]
    if not path.exists():
        raise FileNotFoundError(f"{folder.name}: the link to {target} leads nowhere.")
    name = path.relative_to(ROOT)
    return text if str(name) in text else f"{text} (`{name}` in the repository)"


def render_table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in r)} |\n" for r in lines)


def render_variants(registry: Registry[Any]) -> str:
    """Return the table of all variants of one kind."""
    head = ("name", "title", "what it does", "source", "options and defaults")
    return render_table(head, (_describe_variant(variant) for variant in registry))


def _describe_variant(variant: Variant) -> tuple[str, ...]:
    options = [
        f"`{name}: {_format_default(field)}`"
        for name, field in variant.options.model_fields.items()
    ]
    link = r"[arXiv \1](https://arxiv.org/abs/\1)"
    source = re.sub(r"arXiv (\d{4}\.\d{5})", link, variant.paper) or "ours"
    return f"`{variant.name}`", variant.title, variant.summary, source, "<br>".join(options)


def render_commands() -> str:
    """Return a section for every command, with its arguments, options and example."""
    return "\n".join(_iter_commands(typer.main.get_command(app), "bridgekd"))


def _iter_commands(command: Any, name: str) -> Iterator[str]:
    parameters = [p for p in command.params if not p.hidden]
    usage = " ".join(p.name.upper() for p in parameters if _is_argument(p))
    if name != "bridgekd":
        usage = f"{name} [OPTIONS] {usage}".strip()
        yield f"## {name}\n\n{command.help}\n\n```text\n{usage}\n```\n"
        yield render_table(
            ("argument or option", "meaning", "default"),
            (_describe_parameter(p) for p in parameters),
        )
        if command.epilog:
            yield f"```sh\n{command.epilog.removeprefix('Example: ')}\n```\n"
    for child in getattr(command, "commands", {}).values():
        yield from _iter_commands(child, f"{name} {child.name}")


def _is_argument(parameter: Any) -> bool:
    return not parameter.opts[0].startswith("-")


def _describe_parameter(parameter: Any) -> tuple[str, ...]:
    if _is_argument(parameter):
        name = f"`{parameter.name.upper()}`"
    else:
        name = ", ".join(f"`{option}`" for option in parameter.opts)
        name += f" `{parameter.metavar}`" if parameter.metavar else ""
    default = parameter.default
    shown = "" if default in (None, False, "", ()) or callable(default) else f"`{default}`"
    return name, parameter.help or "", "required" if parameter.required else shown


def render_recipe() -> str:
    """Return a table for every part of the recipe, and the commented template."""
    prefixes: dict[type[BaseModel], list[str]] = {}
    _collect_parts(Recipe, "", prefixes)
    parts = "\n".join(_render_part(model, names) for model, names in prefixes.items())
    template = TEMPLATE.read_text(encoding="utf-8")
    head = "## Commented template\n\n`bridgekd init` writes it."
    return f"{parts}\n{head}\n\n```yaml\n{template}```\n"


def _collect_parts(
    model: type[BaseModel], prefix: str, prefixes: dict[type[BaseModel], list[str]]
) -> None:
    """Add to `prefixes` under which keys every model of options is used."""
    prefixes.setdefault(model, []).append(prefix)
    for name, field in model.model_fields.items():
        nested = _find_model(field.annotation)
        if nested is not None and nested is not VariantRef:
            _collect_parts(nested, f"{prefix}.{name}".lstrip("."), prefixes)


def _render_part(model: type[BaseModel], prefixes: list[str]) -> str:
    title = ", ".join(f"`{prefix}`" for prefix in prefixes if prefix) or "Top level"
    summary, _, attributes = inspect.cleandoc(model.__doc__ or "").partition("Attributes:\n")
    meanings = {name: _join_lines(text) for name, text in ATTRIBUTE.findall(attributes)}
    rows = (
        (
            f"`{name}`",
            meanings[name],
            _format_type(field.annotation),
            _format_default(field, name),
        )
        for name, field in model.model_fields.items()
    )
    table = render_table(("key", "meaning", "type", "default"), rows)
    return f"## {title}\n\n{_join_lines(summary)}\n\n{table}"


def _join_lines(text: str) -> str:
    return " ".join(text.split())


def _find_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_find_model, get_args(annotation))), None)


def _format_type(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if annotation is VariantRef:
        return "a name, or a mapping with `name` or `file` and options"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping"
    if annotation is type(None):
        return "`null`"
    arguments = [a for a in get_args(annotation) if a is not Ellipsis]
    origin = get_origin(annotation)
    if origin in (tuple, list):
        return f"list of {_format_type(arguments[0])}"
    if origin is dict:
        return "mapping"
    if origin is Union or arguments:
        return " or ".join(_format_type(a) for a in arguments if _is_type(a))
    return str(getattr(annotation, "__name__", annotation))


def _is_type(argument: Any) -> bool:
    return isinstance(argument, type) or get_origin(argument) is not None


def _format_default(field: Any, key: str = "") -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required" if key else "..."
    if isinstance(value, VariantRef):
        return f"`{value}`"
    if isinstance(value, BaseModel):
        return "see below"
    text = value if isinstance(value, str) else json.dumps(value)
    return f"`{text or chr(39) * 2}`" if key else text


def render_api() -> str:
    """Return one mkdocstrings block for every public name."""
    names = [name for name in bridgekd.__all__ if not _is_error(name)]
    functions = [name for name in names if name[0].islower()]
    classes = [name for name in names if name[0].isupper()]
    error_names = [name for name in bridgekd.__all__ if _is_error(name)]
    sections = {
        "## Functions": functions,
        "## Classes": classes,
        f"## Errors\n\n{_read_error_tree()}": error_names,
    }
    return "\n".join(
        f"{head}\n\n" + "\n".join(_render_object(name) for name in sorted(members))
        for head, members in sections.items()
    )


def _is_error(name: str) -> bool:
    return name.endswith("Error")


def _render_object(name: str) -> str:
    return f"::: bridgekd.{name}\n    options:\n      heading_level: 3\n"


def _read_error_tree() -> str:
    """Return the docstring of bridgekd.errors without its example: the tree, and its rules."""
    return inspect.cleandoc(errors.__doc__ or "").partition(">>>")[0]


def render_options() -> str:
    """Return one mkdocstrings block for every class of recipe options."""
    classes = [getattr(recipe, name) for name in recipe.__all__ if name[0].isupper()]
    models = [c for c in classes if isinstance(c, type) and issubclass(c, recipe.FrozenModel)]
    models.remove(recipe.FrozenModel)
    return "\n".join(
        f"::: {c.__module__}.{c.__name__}\n    options:\n      heading_level: 3\n" for c in models
    )


GENERATORS: dict[str, Callable[[], str]] = {
    "methods": lambda: render_variants(METHODS),
    "strategies": lambda: render_variants(STRATEGIES),
    "difficulties": lambda: render_variants(MEASURES),
    "mixtures": lambda: render_variants(MIXTURES),
    "objectives": lambda: render_variants(OBJECTIVES),
    "selectors": lambda: render_variants(SELECTORS),
    "target_formats": lambda: render_variants(TARGET_FORMATS),
    "orders": lambda: render_variants(ORDERS),
    "transports": lambda: render_variants(TRANSPORTS),
    "graders": lambda: render_variants(GRADERS),
    "commands": render_commands,
    "recipe": render_recipe,
    "api": render_api,
    "options": render_options,
}
