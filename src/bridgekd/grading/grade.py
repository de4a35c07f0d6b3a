"""Grade a model's text as a prediction or as a rationale."""

from collections.abc import Sequence
from typing import Literal

from bridgekd.grading.answer_extraction import split_answer
from bridgekd.grading.answer_type import AnswerType
from bridgekd.records import Example, Prediction, Rationale

FilterName = Literal["correct", "confident", "self_consistent", "all"]
WRONG_ANSWER = "wrong answer"


def grade_answer(example: Example, text: str, answer_type: AnswerType) -> Prediction:
    """Return the answer of a text and whether it is the gold answer."""
    answer = answer_type.extract_answer(text, example.choices)
    is_correct = answer_type.matches_gold(answer, example)
    return Prediction(example.id, text, answer, is_correct)


def join_reasoning(text: str, reasoning: str) -> str:
    """Return a teacher's text; with the reasoning before it if the text is an answer alone.

    >>> join_reasoning("Answer: 4", "2 + 2 = 4.")
    '<think>2 + 2 = 4.</think>\\nAnswer: 4'
    """
    if not text:
        return reasoning
    is_answer_alone = bool(reasoning) and not split_answer(text)[0]
    return f"<think>{reasoning}</think>\n{text}" if is_answer_alone else text


def check_rationale(
    example: Example,
    text: str,
    answer_type: AnswerType,
    source: str,
    rule: FilterName,
    *,
    state: str = "answered",
) -> Rationale:
    """Return a text as a rationale, kept or dropped with a reason.

    Every rule drops texts that are truncated, refused or empty. A text without an answer is
    dropped, except by the rule `all` if a gold answer can replace it. The rule `correct` also drops
    texts with a wrong answer.
    """
    rationale, _ = split_answer(text)
    answer = answer_type.extract_answer(text, example.choices)
    reason = ""
    if state != "answered":
        reason = state
    elif not rationale:
        reason = "no rationale"
    elif not answer and (rule != "all" or example.answer is None):
        reason = "no answer"
    elif rule == "correct" and example.answer is None:
        reason = "no gold answer to check against"
    elif rule == "correct" and not answer_type.matches_gold(answer, example):
        gold = answer_type.canonicalize(example.answer or "", example.choices)
        reason = f"{WRONG_ANSWER}: {answer}, not {gold}"
    return Rationale(example.id, rationale, answer, source, not reason, reason)


def is_wrong_answer(rationale: Rationale) -> bool:
    """Return whether a rationale was dropped because its answer is not the gold answer."""
    return not rationale.kept and rationale.reason.startswith(f"{WRONG_ANSWER}:")


def extract_answers(
    examples: Sequence[Example], texts: Sequence[Sequence[str]], answer_type: AnswerType
) -> list[list[str]]:
    """Return the canonical answers of every example's texts; "" for a text without one."""
    return [
        [answer_type.extract_answer(text, example.choices) for text in samples]
        for example, samples in zip(examples, texts, strict=True)
    ]
