"""The world's step checker in the form that `evaluate.step_checker: sandbox` asks for."""

from bridgekd.records import StepCount
from bridgekd.sandbox.world import check_steps


def count_wrong_steps(question: str, rationale: str) -> StepCount | None:
    """Every step that is wrong, not understood or missing counts as one that went wrong; None
    where the question is not of this world.
    """
    try:
        found = check_steps(question, rationale)
    except ValueError:
        return None
    lost = found.n_unread + found.n_missing
    return StepCount(found.n_steps + lost, found.n_wrong + lost)
