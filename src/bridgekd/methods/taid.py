"""TAID (arXiv 2501.16937): the student follows a target that moves from itself to the assistant."""

from bridgekd.lm.objectives.interpolated_kl import InterpolatedKLOptions
from bridgekd.methods.distill import define_distilled_method

METHOD = define_distilled_method(
    "interpolated_kl",
    InterpolatedKLOptions,
    name="taid",
    title="TAID",
    summary="The student follows a target that moves from itself to the assistant.",
    paper="arXiv 2501.16937",
    difference="On them the student learned a distribution that moved from its own to the "
    "assistant's.",
    rank=75,
)
