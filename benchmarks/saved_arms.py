"""One model of a comparison as a small record that a script keeps in a file of results."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from bridgekd.stats.compute_metrics import ArmResult


class SavedArm(BaseModel):
    """An ArmResult without its question ids: `correct` has 0 or 1 for every id of the file.

    `words` has a number for every id, or nothing where no table shows words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    arm: str
    title: str
    budget: str
    correct: str
    words: tuple[int, ...] = ()
    n_queries: int
    spend_usd: float
    seconds: float
    is_trained: bool

    def to_result(self, seed: int, ids: Sequence[str]) -> ArmResult:
        """Return the arm as the statistics of the package take it."""
        return ArmResult(
            arm=self.arm,
            title=self.title,
            seed=seed,
            budget=self.budget,
            is_correct={id: c == "1" for id, c in zip(ids, self.correct, strict=True)},
            words=dict(zip(ids, self.words, strict=True)) if self.words else {},
            wrong_steps={},
            n_queries=self.n_queries,
            spend_usd=self.spend_usd,
            seconds=self.seconds,
            is_trained=self.is_trained,
        )


def save_arm(result: ArmResult, ids: Sequence[str], *, has_words: bool = True) -> SavedArm:
    """Return what is kept of a result, whose answers are put in the order of `ids`."""
    return SavedArm(
        arm=result.arm,
        title=result.title,
        budget=result.budget,
        correct="".join("01"[result.is_correct[id]] for id in ids),
        words=tuple(result.words[id] for id in ids) if has_words else (),
        n_queries=result.n_queries,
        spend_usd=result.spend_usd,
        seconds=result.seconds,
        is_trained=result.is_trained,
    )
