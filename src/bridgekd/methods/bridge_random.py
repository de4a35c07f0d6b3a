"""BRIDGE with questions drawn at random, the baseline of every strategy."""

from bridgekd.methods.bridge import define_bridge_variant

METHOD = define_bridge_variant(
    "random",
    "random selection",
    title="BRIDGE with random selection",
    summary="The baseline that selection by difficulty and diversity has to beat.",
    difference="with questions drawn at random",
    rank=90,
)
