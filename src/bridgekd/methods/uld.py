"""ULD (arXiv 2402.12030): the baseline for an assistant that has another tokenizer."""

from bridgekd.lm.objectives.uld import ULDOptions
from bridgekd.methods.distill import define_distilled_method

METHOD = define_distilled_method(
    "uld",
    ULDOptions,
    name="uld",
    title="ULD",
    summary="The student follows the assistant's sorted probabilities, whatever the tokenizers.",
    paper="arXiv 2402.12030",
    difference="On them the student learned the text, and the assistant's probabilities in falling "
    "order.",
    rank=78,
)
