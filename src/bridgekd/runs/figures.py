"""What is measured of the models of a run beside their answers, if the recipe says so."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bridgekd.io.artifact_store import Artifact
from bridgekd.stages.sample_answers import build_sample_answers_settings, sample_answers

if TYPE_CHECKING:
    from bridgekd.runs.run import Arm, Run


def make_figures(run: "Run", arms: Sequence["Arm"]) -> list[Artifact]:
    """Return the sampled answers of every student; [] without evaluate.n_samples."""
    students = [arm for arm in arms if arm.role == "student"]
    if not run.recipe.evaluate.n_samples:
        return []
    pool, test = run.load_pool(), run.load_test()
    return [
        run.make(
            sample_answers,
            build_sample_answers_settings(run.recipe, arm.prompt_mode),
            pool,
            test,
            arm.model,
        )
        for arm in students
    ]
