"""One row: the rationale, then the answer."""

from bridgekd.prompts import render_cot_prompt
from bridgekd.records import Example, Rationale, TrainingExample
from bridgekd.targets import TargetFormat
from bridgekd.variants import NoOptions


def build_joint(
    example: Example, rationale: Rationale, answer: str, options: NoOptions
) -> list[TrainingExample]:
    """Return the row of a rationale. BRIDGE states the loss; that it is one row is our reading."""
    prompt = render_cot_prompt(example)
    return [TrainingExample(example.id, prompt, rationale.text, answer, rationale.source)]


TARGET_FORMAT = TargetFormat(
    name="joint",
    title="Rationale, then answer",
    summary="One row per rationale: the rationale, then the answer.",
    paper="arXiv 2512.20403",
    build=build_joint,
)
