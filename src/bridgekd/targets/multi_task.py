"""Two rows for two tasks: to explain, and to answer."""

from bridgekd.prompts import render_answer_prompt, render_cot_prompt
from bridgekd.records import Example, Rationale, TrainingExample
from bridgekd.targets import TargetFormat
from bridgekd.variants import NoOptions


def build_multi_task(
    example: Example, rationale: Rationale, answer: str, options: NoOptions
) -> list[TrainingExample]:
    """Return the row of the rationale and that of the answer, each with its own prompt."""
    explain, solve = render_cot_prompt(example), render_answer_prompt(example)
    return [
        TrainingExample(example.id, explain, rationale.text, None, rationale.source),
        TrainingExample(example.id, solve, None, answer, rationale.source),
    ]


TARGET_FORMAT = TargetFormat(
    name="multi_task",
    title="Rationale and answer as two tasks",
    summary="Two rows per rationale: to explain, and to answer without reasoning.",
    paper="arXiv 2305.02301",
    build=build_multi_task,
    writes_rationale=False,
)
