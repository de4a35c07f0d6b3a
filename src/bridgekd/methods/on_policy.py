"""On-policy distillation: after a start on the assistant's rationales the student writes every text
itself and learns what the assistant would have written there.
"""

from pydantic import Field

from bridgekd.lm.divergence import DivergenceOptions
from bridgekd.methods.distill import define_distilled_method


class OnPolicyMethodOptions(DivergenceOptions):
    """The options of reverse_kl; all rows are on-policy. sft_fraction: as in `distill`; the half is
    ours, because an untrained student writes no text that is worth correcting.
    """

    on_policy: float = Field(1.0, ge=0, le=1)
    sft_fraction: float = Field(0.5, ge=0, lt=1)


METHOD = define_distilled_method(
    "reverse_kl",
    OnPolicyMethodOptions,
    name="on_policy",
    title="on-policy distillation",
    summary="The student writes every text itself and learns from the assistant's distribution.",
    paper="thinkingmachines.ai/blog/on-policy-distillation",
    difference="The student learned from them first, then on texts of its own, by the exact "
    "reverse KL to the assistant.",
    rank=73,
)
