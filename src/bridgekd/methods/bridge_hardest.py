"""BRIDGE with selection by difficulty alone."""

from bridgekd.methods.bridge import define_bridge_variant

METHOD = define_bridge_variant(
    "hardest",
    "hardest questions",
    title="BRIDGE with the hardest questions",
    summary="BRIDGE that selects by difficulty alone.",
    difference="with selection by difficulty alone",
    rank=40,
)
