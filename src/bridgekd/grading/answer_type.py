"""The type of a task's answers: its grader together with the options of the recipe."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from bridgekd.grading.answer_extraction import find_marked_answer, is_refusal, split_answer
from bridgekd.grading.grader import Grader
from bridgekd.grading.graders import GRADERS
from bridgekd.variants import VariantRef, VariantSettings


@dataclass(frozen=True, slots=True)
class AnswerType:
    """How the answers of one task are read and compared. It can be pickled for another process."""

    settings: VariantSettings
    grader: Grader[Any]
    options: BaseModel

    @property
    def has_choices(self) -> bool:
        """Whether every question has choices, one of which is the answer."""
        return self.grader.has_choices

    def extract_answer(self, text: str, choices: Sequence[str] = ()) -> str:
        """Return the final answer of `text` in canonical form, or "" if there is none.

        The strongest statement of an answer counts; see `answer_extraction`. Only a text without
        one is searched further, unless it is a refusal.
        """
        _, written = split_answer(text)
        if written:
            return self.canonicalize(written, choices)
        if find_marked_answer(text) is not None or is_refusal(text):
            return ""
        return self.grader.find_unmarked_answer(text, choices, self.options)

    def canonicalize(self, answer: str, choices: Sequence[str] = ()) -> str:
        """Return the form in which equal answers are equal; "" if it is not of this type."""
        return self.grader.canonicalize(answer, choices, self.options)

    def is_correct(self, answer: str, gold: str | None, choices: Sequence[str] = ()) -> bool:
        """Return whether the answer means the gold answer; an empty one never does."""
        if gold is None or not self.canonicalize(answer, choices):
            return False
        if not self.canonicalize(gold, choices):
            return False
        return self.grader.match(answer, gold, choices, self.options)

    def clean_gold(self, answer: str, choices: Sequence[str] = ()) -> str:
        """Return the gold answer as the student learns it."""
        return self.grader.clean_gold(answer, choices, self.options)

    def __reduce__(self) -> tuple[Callable[..., "AnswerType"], tuple[object, ...]]:
        # A grader of the user is a module that only a process which loaded the file can import.
        return _restore, (self.settings, GRADERS.find_file(self.settings))


def load_answer_type(settings: VariantSettings) -> AnswerType:
    """Return the answer type that a stage's settings hold."""
    return AnswerType(settings, GRADERS.load(settings), GRADERS.parse_options(settings))


def _restore(settings: VariantSettings, file: str | None) -> AnswerType:
    if file is not None:
        GRADERS.resolve(VariantRef.model_validate({"file": file, **settings.options}))
    return load_answer_type(settings)
