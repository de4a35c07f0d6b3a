"""BRIDGE with selection by diversity alone."""

from bridgekd.methods.bridge import define_bridge_variant

METHOD = define_bridge_variant(
    "diverse",
    "diverse questions",
    title="BRIDGE with diverse questions",
    summary="BRIDGE that selects by diversity alone.",
    difference="with selection by diversity alone",
    rank=50,
)
