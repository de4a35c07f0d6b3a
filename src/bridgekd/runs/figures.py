"""What is measured of the models of a run beside their answers, if the recipe says so."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bridgekd.io.artifact_store import Artifact
from bridgekd.stages.measure_memorization import MemorizationSettings, measure_memorization
from bridgekd.stages.sample_answers import build_sample_answers_settings, sample_answers

if TYPE_CHECKING:
    from bridgekd.runs.run import Arm, Run


def make_figures(run: "Run", arms: Sequence["Arm"]) -> list[Artifact]:
    """Return the sampled answers of every student (evaluate.n_samples), and the memorization of
    every trained one (evaluate.n_memorized).
    """
    students = [arm for arm in arms if arm.role == "student"]
    memorized = MemorizationSettings(n_rationales=run.recipe.evaluate.n_memorized)
    figures = [
        run.make(measure_memorization, memorized, arm.model, run.student)
        for arm in students
        if arm.is_result and memorized.n_rationales
    ]
    if not run.recipe.evaluate.n_samples:
        return figures
    pool, test = run.load_pool(), run.load_test()
    return figures + [
        run.make(
            sample_answers,
            build_sample_answers_settings(run.recipe, arm.prompt_mode),
            pool,
            test,
            arm.model,
        )
        for arm in students
    ]
