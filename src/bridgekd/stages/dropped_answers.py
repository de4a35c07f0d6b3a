"""Stop a purchase whose answers are all dropped: more answers cost money and teach nothing."""

from collections import Counter
from collections.abc import Mapping

from bridgekd.errors import StoppedError
from bridgekd.grading.answer_type import AnswerType
from bridgekd.grading.grade import check_rationale
from bridgekd.recipe import CheckOptions
from bridgekd.records import Example, Rationale

N_SHOWN = 3
_MAX_CHARACTERS = 160  # of an answer that is shown
_CAUSES = {
    "truncated": "The answers reach teacher.max_tokens before they end. Raise it.",
    "no rationale": "The answers have no text before the final answer. Look at teacher.prompt, and "
    "at teacher.max_tokens if the model reasons before it writes.",
    "no answer": "The answers state no answer of this type. Look at data.answer_type and at "
    "teacher.prompt: the last line must be `Answer: ...`.",
    "wrong answer": "The answers are read, but they differ from the gold answers. Look at "
    "data.columns.answer, data.columns.choices and data.answer_type.",
    "no gold answer to check against": "The questions have no gold answers. Set check.filter: all.",
}


class DroppedAnswers:
    """The answers of one purchase, until the first one is kept."""

    def __init__(
        self, examples: Mapping[str, Example], answer_type: AnswerType, check: CheckOptions
    ) -> None:
        self._examples, self._answer_type, self._check = examples, answer_type, check
        self._dropped: list[tuple[Example, Rationale, str]] = []
        self._has_kept = False

    def add(self, id: str, state: str, text: str) -> None:
        """Add an answer. Raises StoppedError if `check.max_dropped` came and none was kept."""
        if self._has_kept or self._check.max_dropped is None or state == "refused":
            return
        example = self._examples[id]
        rationale = check_rationale(
            example, text, self._answer_type, "teacher", self._check.filter, state=state
        )
        self._has_kept = rationale.kept
        self._dropped.append((example, rationale, text))
        if not self._has_kept and len(self._dropped) >= self._check.max_dropped:
            raise StoppedError(self._describe())

    def _describe(self) -> str:
        reasons = Counter(rationale.reason.partition(":")[0] for _, rationale, _ in self._dropped)
        reason, n = reasons.most_common(1)[0]
        shown = "".join(
            f"\n  {example.id}: gold {example.answer!r}, {rationale.reason}; the answer ends "
            f"{text.strip()[-_MAX_CHARACTERS:]!r}"
            for example, rationale, text in self._dropped[:N_SHOWN]
        )
        return (
            f"None of the first {len(self._dropped)} answers was kept (check.filter: "
            f"{self._check.filter}), so purchasing stopped. Most frequent reason: {reason} ({n})."
            f"{shown}\n{_CAUSES.get(reason, 'Look at teacher.prompt and data.answer_type.')} All "
            "answers are saved in the ledger and are not bought again. After the change, run the "
            "same command to resume. To continue without this stop, set check.max_dropped: null."
        )
