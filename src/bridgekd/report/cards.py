"""A model card and a data card as Markdown, from plain numbers and texts.

Nothing of the user's machine is shown: what comes in are names, never paths.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from ruamel.yaml import YAML

from bridgekd.report.evidence import Purchase
from bridgekd.report.page import cell


@dataclass(frozen=True, slots=True)
class Figure:
    """An accuracy with its 95 % Wilson interval."""

    title: str
    accuracy: float
    low: float
    high: float
    n_test: int


@dataclass(frozen=True, slots=True)
class Card:
    """What both cards tell of one exported arm."""

    run: str
    arm: str
    title: str
    how: str  # the method, in a sentence
    base: str  # a Hub id or a folder's name
    base_on_hub: bool
    licence: Mapping[str, str]  # the base's: license, perhaps license_name and license_link
    train_data: str  # a file's name or a Hub id
    test_data: str
    n_pool: int
    n_validation: int
    contamination: str
    teacher: str
    provider: str
    budget: str
    n_queries: int | float  # a mean over seeds
    spend_usd: float
    purchases: tuple[Purchase, ...]
    figures: tuple[Figure, ...]  # this model first
    by_domain: tuple[Figure, ...]
    n_rows: int
    n_questions: int
    n_too_long: int
    sources: Mapping[str, int]  # teacher, assistant -> rows
    dropped: Mapping[str, int]  # reason -> rationales
    rules: tuple[str, ...]  # which rationales were kept: the recipe's `keep`
    two_task: bool
    n_updates: int
    best_update: int  # whose weights were kept
    dtype: str
    n_parameters: int
    max_new_tokens: int
    prompt_end: str  # what follows the question in a prompt
    notes: tuple[str, ...]
    libraries: str


def model_card(card: Card) -> str:
    """README.md of the exported folder."""
    known: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    based = {"base_model": card.base} if card.base_on_hub else {}
    tags = {"tags": ["bridgekd", "distillation", "reasoning"]}
    return _front_matter(known | based | dict(card.licence) | tags) + _rendered(
        "model_card.md", card
    )


def data_card(card: Card) -> str:
    """README.md of the exported rows."""
    split = {"split": "train", "path": "train.parquet"}
    told = {
        "license": "unknown",
        "task_categories": ["text-generation"],
        "tags": ["bridgekd", "distillation", "synthetic"],
        "configs": [{"config_name": "default", "data_files": [split]}],
    }
    return _front_matter(told) + _rendered("data_card.md", card)


def _rendered(name: str, card: Card) -> str:
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["percent"] = lambda share: f"{share:.1%}".replace("%", " %")
    environment.filters["cell"] = cell
    terms = files(__package__).joinpath("terms.md").read_text()
    template = environment.from_string(files(__package__).joinpath(name).read_text())
    return template.render(c=card, terms=environment.from_string(terms).render(c=card))


def _front_matter(told: Mapping[str, str | Sequence[object]]) -> str:
    text = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.dump(dict(told), text)
    return f"---\n{text.getvalue()}---\n\n"
