"""The type of a task's answers: its grader and the options of the recipe."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel

from bridgekd.grading.answer_extraction import is_refusal, read_stated_answer
from bridgekd.grading.grader import Grader
from bridgekd.grading.graders import GRADERS
from bridgekd.records import Example
from bridgekd.variants import VariantRef, VariantSettings

MAX_ANSWER = 2_000  # characters of an answer that are read; a longer one is a text, not an answer


@dataclass(frozen=True, slots=True)
class AnswerType:
    """The rules by which the answers of one task are read and compared. Supports pickle."""

    settings: VariantSettings
    grader: Grader[Any]
    options: BaseModel
    labels: tuple[str, ...] = ()  # of the data, for a grader that compares labels

    @property
    def has_choices(self) -> bool:
        """Whether every question has choices, one of which is the answer."""
        return self.grader.has_choices

    def extract_answer(self, text: str, choices: Sequence[str] = ()) -> str:
        """Return the final answer of `text` in canonical form, or "" if there is none.

        The strongest statement of an answer counts; see `answer_extraction`. The grader searches
        only a text that has none and that is no refusal.
        """
        stated = read_stated_answer(text)
        if stated.answer:
            return self.canonicalize(stated.answer, choices)
        if stated.is_marked or is_refusal(stated.text):
            return ""
        known = choices or self.labels
        return self.grader.find_unmarked_answer(stated.text, known, self.options)

    def canonicalize(self, answer: str, choices: Sequence[str] = ()) -> str:
        """Return the form in which equal answers are equal; "" if it is not of this type."""
        return self.grader.canonicalize(answer[:MAX_ANSWER], choices or self.labels, self.options)

    def is_correct(self, answer: str, gold: str | None, choices: Sequence[str] = ()) -> bool:
        """Return whether the answer means the gold answer; an empty one never does."""
        if gold is None or not all(self.canonicalize(text, choices) for text in (answer, gold)):
            return False
        return self.grader.match(answer, gold, choices or self.labels, self.options)

    def matches_gold(self, answer: str, example: Example) -> bool:
        """Return whether the answer means the example's gold answer or one of its alternatives."""
        golds = (example.answer, *example.alternatives)
        return any(self.is_correct(answer, gold, example.choices) for gold in golds)

    def is_gold(self, answer: str, choices: Sequence[str] = ()) -> bool:
        """Return whether a text of the data is a gold answer of this type, from end to end."""
        if not self.canonicalize(answer, choices):
            return False
        check = self.grader.is_gold
        return check is None or check(answer, choices, self.options)

    def with_labels(self, answers: Iterable[str | None]) -> "AnswerType":
        """Return the type that knows the labels of the data; other types are as before."""
        if not self.grader.compares_labels:
            return self
        return replace(self, labels=tuple(sorted({a for a in answers if a})))

    def clean_gold(self, answer: str, choices: Sequence[str] = ()) -> str:
        """Return the gold answer in the form that the student is trained on."""
        return self.grader.clean_gold(answer, choices, self.options)

    def __reduce__(self) -> tuple[Callable[..., "AnswerType"], tuple[object, ...]]:
        # A process can import a user's grader only after it has loaded the file.
        return _restore, (self.settings, GRADERS.find_file(self.settings), self.labels)


def load_answer_type(settings: VariantSettings) -> AnswerType:
    """Return the answer type of a stage's settings."""
    return AnswerType(settings, GRADERS.load(settings), GRADERS.parse_options(settings))


def _restore(settings: VariantSettings, file: str | None, labels: tuple[str, ...]) -> AnswerType:
    if file is not None:
        GRADERS.resolve(VariantRef.model_validate({"file": file, **settings.options}))
    return replace(load_answer_type(settings), labels=labels)
