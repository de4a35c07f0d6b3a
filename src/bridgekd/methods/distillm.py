"""DistiLLM (arXiv 2402.03898): a skewed divergence, and texts of the student's own only once the
loss stops falling.
"""

from bridgekd.lm.objectives.adaptive_skew import AdaptiveSkewOptions
from bridgekd.methods.distill import define_distilled_method

METHOD = define_distilled_method(
    "adaptive_skew",
    AdaptiveSkewOptions,
    name="distillm",
    title="DistiLLM",
    summary="The student learns a skewed divergence, on its own texts once its loss stops falling.",
    paper="arXiv 2402.03898",
    difference="On them, and more and more on texts of its own, the student learned the "
    "assistant's distribution by a skewed KL.",
    rank=71,
)
