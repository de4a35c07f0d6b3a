"""MiniLLM (arXiv 2306.08543), simplified: the reverse KL of whole texts that the student writes."""

from bridgekd.lm.objectives.sequence_reverse_kl import SequenceReverseKLOptions
from bridgekd.methods.distill import define_distilled_method

METHOD = define_distilled_method(
    "sequence_reverse_kl",
    SequenceReverseKLOptions,
    name="minillm",
    title="MiniLLM",
    summary="The student lowers the reverse KL of the whole texts that it writes.",
    paper="arXiv 2306.08543",
    difference="The student learned on texts of its own alone, by the reverse KL of whole texts "
    "to the assistant.",
    rank=72,
)
