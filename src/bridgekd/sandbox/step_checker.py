"""The step checker of the world, for `evaluate.step_checker: sandbox`."""

from bridgekd.records import StepCount
from bridgekd.sandbox.world import check_steps


def count_wrong_steps(question: str, rationale: str) -> StepCount | None:
    """Return the steps and wrong steps of a rationale; None for a question of another world.

    A step that is wrong, not understood or missing counts as wrong.
    """
    try:
        report = check_steps(question, rationale)
    except ValueError:
        return None
    n_lost = report.n_unread + report.n_missing
    return StepCount(report.n_steps + n_lost, report.n_wrong + n_lost)
