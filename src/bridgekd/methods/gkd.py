"""GKD (arXiv 2306.13649): half of the rationales are the student's own, and the assistant's
distribution corrects them.
"""

from pydantic import Field

from bridgekd.lm.objectives.jsd import JSDOptions
from bridgekd.methods.distill import define_distilled_method


class GKDOptions(JSDOptions):
    """The options of jsd, with the constants of TRL's GKD trainer: half of the rows on-policy,
    sampled at 0.9, and a loss at temperature 1.
    """

    on_policy: float = Field(0.5, ge=0, le=1)
    sampling_temperature: float = Field(0.9, gt=0, le=1000)


METHOD = define_distilled_method(
    "jsd",
    GKDOptions,
    name="gkd",
    title="GKD",
    summary="The student learns from its own texts, too, which the assistant's distribution "
    "corrects.",
    paper="arXiv 2306.13649",
    difference="On half of them and on texts of its own the student learned the assistant's "
    "distribution, by the Jensen-Shannon divergence.",
    rank=74,
)
