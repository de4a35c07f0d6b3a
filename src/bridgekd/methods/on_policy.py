"""On-policy distillation: the student writes every text itself and learns what the assistant would
have written there.
"""

from pydantic import Field

from bridgekd.lm.divergence import DivergenceOptions
from bridgekd.methods.distill import define_distilled_method


class OnPolicyMethodOptions(DivergenceOptions):
    """The options of reverse_kl; all rows are on-policy."""

    on_policy: float = Field(1.0, ge=0, le=1)


METHOD = define_distilled_method(
    "reverse_kl",
    OnPolicyMethodOptions,
    name="on_policy",
    title="on-policy distillation",
    summary="The student writes every text itself and learns from the assistant's distribution.",
    paper="thinkingmachines.ai/blog/on-policy-distillation",
    difference="The student learned on texts of its own alone, by the exact reverse KL to the "
    "assistant.",
    rank=73,
)
