"""`bridgekd list`: the variants that a recipe can name, with those of installed plugins."""

from collections.abc import Iterable, Mapping
from typing import Annotated

import typer

from bridgekd.cli.documents import VariantInfo, VariantList, VariantType, print_document
from bridgekd.cli.terminal import JsonFlag, make_table, out, print_table
from bridgekd.grading.graders import GRADERS
from bridgekd.lm.objectives import OBJECTIVES
from bridgekd.lm.orders import ORDERS
from bridgekd.methods import METHODS
from bridgekd.rationales import SELECTORS
from bridgekd.selection.difficulty import MEASURES
from bridgekd.selection.mixtures import MIXTURES
from bridgekd.selection.strategies import STRATEGIES
from bridgekd.targets import TARGET_FORMATS
from bridgekd.teacher.transports import TRANSPORTS
from bridgekd.variants import Variant

REGISTRIES: Mapping[VariantType, Iterable[Variant]] = {
    "methods": METHODS,
    "strategies": STRATEGIES,
    "difficulties": MEASURES,
    "mixtures": MIXTURES,
    "objectives": OBJECTIVES,
    "selectors": SELECTORS,
    "target_formats": TARGET_FORMATS,
    "orders": ORDERS,
    "transports": TRANSPORTS,
    "graders": GRADERS,
}
TYPES_HELP = f"What to list: {', '.join(REGISTRIES)}."


def list_command(
    variant_type: Annotated[VariantType, typer.Argument(metavar="TYPE", help=TYPES_HELP)],
    as_json: JsonFlag = False,
) -> None:
    """List the variants that a recipe can name, each with a description and its paper."""
    variants = [
        VariantInfo(name=v.name, title=v.title, summary=v.summary, paper=v.paper)
        for v in REGISTRIES[variant_type]
    ]
    if as_json:
        print_document(VariantList(variant_type=variant_type, variants=tuple(variants)))
        return
    table = make_table("", ("name", "description", "paper"))
    for variant in variants:
        table.add_row(variant.name, variant.summary, variant.paper)
    print_table(out, table)
