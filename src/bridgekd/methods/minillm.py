"""MiniLLM (arXiv 2306.08543), simplified: the reverse KL of whole texts that the student writes."""

from pydantic import Field

from bridgekd.lm.objectives.sequence_reverse_kl import SequenceReverseKLOptions
from bridgekd.methods.distill import define_distilled_method


class MiniLLMOptions(SequenceReverseKLOptions):
    """The options of sequence_reverse_kl. sft_fraction: as in `distill`; the paper starts from a
    fine-tuned student, and the half is ours.
    """

    sft_fraction: float = Field(0.5, ge=0, lt=1)


METHOD = define_distilled_method(
    "sequence_reverse_kl",
    MiniLLMOptions,
    name="minillm",
    title="MiniLLM",
    summary="The student lowers the reverse KL of the whole texts that it writes.",
    paper="arXiv 2306.08543",
    difference="The student learned from them first, then on texts of its own, by the reverse KL "
    "of whole texts to the assistant.",
    rank=72,
)
