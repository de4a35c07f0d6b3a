"""ALM (arXiv 2503.20083): the student follows an assistant that has another tokenizer."""

from bridgekd.lm.objectives.alm import ALMOptions
from bridgekd.methods.distill import define_distilled_method

METHOD = define_distilled_method(
    "alm",
    ALMOptions,
    name="alm",
    title="ALM",
    summary="The student follows the assistant's probabilities of the same bytes, whatever the "
    "tokenizers.",
    paper="arXiv 2503.20083",
    difference="On them the student learned the assistant's probability of each piece of text that "
    "is whole in the tokens of both.",
    rank=77,
)
