"""A model's text as a prediction or as a rationale."""

from collections.abc import Sequence
from typing import Literal

from bridgekd.core.grading import canonical, is_correct, read_answer, split_answer
from bridgekd.records import Example, Prediction, Rationale

FilterName = Literal["correct", "confident", "consistent", "all"]


def grade_answer(example: Example, text: str, kind: str) -> Prediction:
    """Return a text's answer and whether it is the gold answer."""
    answer = read_answer(text, kind, example.choices)
    right = is_correct(answer, example.answer or "", kind, example.choices)
    return Prediction(example.id, text, answer, right)


def check_rationale(
    example: Example,
    text: str,
    kind: str,
    source: str,
    rule: FilterName,
    *,
    state: str = "answered",
) -> Rationale:
    """Return a text as a rationale, kept or dropped with a reason.

    Dropped are texts that are truncated, refused or empty, those without an answer (under `all`
    only if there is no gold answer in its place), and under `correct` those with a wrong answer.
    """
    rationale, _ = split_answer(text)
    answer = read_answer(text, kind, example.choices)
    reason = ""
    if state != "answered":
        reason = state
    elif not rationale:
        reason = "no rationale"
    elif not answer and (rule != "all" or example.answer is None):
        reason = "no answer"
    elif rule == "correct" and example.answer is None:
        reason = "no gold answer to check against"
    elif rule == "correct" and not is_correct(answer, example.answer or "", kind, example.choices):
        gold = canonical(example.answer or "", kind, example.choices)
        reason = f"wrong answer: {answer}, not {gold}"
    return Rationale(example.id, rationale, answer, source, not reason, reason)


def extract_answers(
    examples: Sequence[Example], texts: Sequence[Sequence[str]], kind: str
) -> list[list[str]]:
    """Return the canonical answers of every example's texts; "" for a text without one."""
    return [
        [read_answer(text, kind, example.choices) for text in own]
        for example, own in zip(examples, texts, strict=True)
    ]
