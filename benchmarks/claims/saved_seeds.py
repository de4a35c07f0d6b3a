"""Results of finished seeds in small files, and the tables that come from these files alone.

The one idea: an experiment whose analysis was planned before its run is analyzed once, after its
last seed. Until then a seed leaves a file and shows nothing. A run that was stopped, or whose store
is lost, goes on with the seeds that have no file.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict
from saved_arms import SavedArm, save_arm

from bridgekd.io.artifact_store import Artifact, find_ancestors
from bridgekd.io.disk import write_atomic
from bridgekd.selection.representativeness import SelectionFigure
from bridgekd.stages.arm_results import ArmReader
from bridgekd.stages.select_questions import SelectSettings, check_selection, select_questions
from claims.experiments import Experiment, Row
from claims.jobs import Answers, Job, repeat_for_seeds
from claims.results import compute_pick_fractions, describe_arm, load_artifact, read_test

RESULTS = Path(__file__).parent / "results"


class SavedChoice(BaseModel):
    """An arm and how its questions were selected. picks: the fraction from each domain. An arm that
    has no ranking of its own has no strategy.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    arm: SavedArm
    strategy: str = ""
    picks: dict[str, float] = {}
    figures: tuple[SelectionFigure, ...] = ()


class SavedSeed(BaseModel):
    """All arms of an experiment with one seed; `arm.correct` is in the order of `ids`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    experiment: str
    seed: int
    ids: tuple[str, ...]
    choices: tuple[SavedChoice, ...]

    def get_titles(self) -> list[str]:
        return [choice.arm.arm for choice in self.choices]


def run_seeds(
    name: str,
    experiment: Experiment,
    seeds: Sequence[int],
    results: Path,
    run_jobs: Callable[[Sequence[Job]], Mapping[Job, Answers]],
) -> list[SavedSeed]:
    """Return the saved results of all seeds. `run_jobs` makes the answers of those without a file.

    SystemExit if a file is of other arms: it is never replaced.
    """
    for seed in seeds:
        file = results / f"{name}-{seed}.json"
        if not file.exists():
            answers = run_jobs(repeat_for_seeds(experiment.jobs, [seed]))
            saved = read_seed(name, experiment, answers, seed)
            results.mkdir(parents=True, exist_ok=True)
            write_atomic(file, saved.model_dump_json() + "\n", mode=0o644)
    return [_load_seed(results / f"{name}-{seed}.json", experiment) for seed in seeds]


def read_seed(
    name: str, experiment: Experiment, answers: Mapping[Job, Answers], seed: int
) -> SavedSeed:
    """Return what is kept of the answers of all arms with one seed."""
    test = {e.id: e for e in read_test(next(iter(answers.values())))}
    reader = ArmReader(test, None)
    choices = []
    for row in experiment.rows:
        (job,) = repeat_for_seeds([row.job], [seed])
        choices.append(_read_choice(reader, row, load_artifact(answers[job][row.model])))
    return SavedSeed(experiment=name, seed=seed, ids=tuple(test), choices=tuple(choices))


def _read_choice(reader: ArmReader, row: Row, predictions: Artifact) -> SavedChoice:
    result = reader.read_arm(describe_arm(row, predictions), predictions)
    arm = save_arm(result, list(reader.test), has_words=False)
    if not any(setting.startswith("select.strategy=") for setting in row.job.settings):
        return SavedChoice(arm=arm)
    ancestors = find_ancestors(predictions).values()
    (ranking,) = (a for a in ancestors if a.stage == select_questions.name)
    strategy = ranking.read_settings(SelectSettings).strategy.name
    if f"select.strategy={strategy}" not in row.job.settings:
        raise SystemExit(f"The arm {row.title} was selected by {strategy}: {ranking.path}.")
    check = check_selection(ranking)
    return SavedChoice(
        arm=arm,
        strategy=strategy,
        picks=dict(compute_pick_fractions([predictions])),
        figures=check.figures if check else (),
    )


def _load_seed(file: Path, experiment: Experiment) -> SavedSeed:
    saved = SavedSeed.model_validate_json(file.read_bytes())
    titles = [row.title for row in experiment.rows]
    if saved.get_titles() != titles:
        raise SystemExit(
            f"{file} has the arms {', '.join(saved.get_titles())}, not {', '.join(titles)}. "
            "Move it away to run this seed again."
        )
    return saved


def collect_answers(seeds: Sequence[SavedSeed]) -> dict[str, np.ndarray]:
    """Return by arm whether each answer is right, 0 or 1 [seeds, questions].

    SystemExit if seeds were asked different questions.
    """
    for saved in seeds:
        if saved.ids != seeds[0].ids:
            raise SystemExit(
                f"{saved.experiment}-{saved.seed}.json has other test questions than "
                f"{saved.experiment}-{seeds[0].seed}.json. Run both with the same world."
            )
    return {
        title: np.array([[float(c) for c in saved.choices[k].arm.correct] for saved in seeds])
        for k, title in enumerate(seeds[0].get_titles())
    }
