"""The exported folder: written beside where it is wanted, renamed when it is whole."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from bridgekd import lm
from bridgekd.comparison import Comparison
from bridgekd.errors import InputError
from bridgekd.exports.cards import ExportedArm, render_dataset_card, render_model_card
from bridgekd.exports.sft_rows import write_sft_rows
from bridgekd.io.artifact_store import Artifact
from bridgekd.io.disk import fsync_files, translate_disk_errors
from bridgekd.progress import Progress, ignore_progress
from bridgekd.records import TrainingExample
from bridgekd.runs.metadata import FinishedRun, find_rationales
from bridgekd.stages.train import RationaleRows, TrainSettings
from bridgekd.stages.training_examples import build_training_examples

N_CHECKED = 20  # prompts of the training that the written tokenizer is tried on
STEPS = 3


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What was written where. `notes` are sentences about what a user of the folder should know."""

    folder: Path
    arm: str
    n_rows: int
    dtype: str
    notes: tuple[str, ...]


def export_arm(
    run: FinishedRun, to: Path, arm: str | None = None, progress: Progress = ignore_progress
) -> ExportResult:
    """Writes one arm of a run into `to`, which must be new or empty.

    The arm is a model that learnt from rationales; None is the student of the run's method. Raises
    InputError for another arm, for a folder that holds something, and as `lm.load` does.
    """
    chosen = run.get_arm(arm)
    with _write_atomic_folder(to) as out:
        lessons = _read_training_examples(chosen.model)
        progress("export", 0, STEPS)
        merged = lm.merge_adapter(
            str(chosen.model.path),
            out,
            max_new_tokens=chosen.predicted.max_new_tokens,
            prompts=[lesson.prompt for lesson in lessons[:N_CHECKED]],
        )
        progress("export", 1, STEPS)
        write_sft_rows(out / "data", lessons)
        progress("export", 2, STEPS)
        exported = ExportedArm(run, chosen, lessons, merged, _format_command(run))
        (out / "README.md").write_text(render_model_card(exported), encoding="utf-8")
        (out / "data" / "README.md").write_text(render_dataset_card(exported), encoding="utf-8")
    progress("export", STEPS, STEPS)
    return ExportResult(to, chosen.name, len(lessons), merged.dtype, merged.notes)


def _read_training_examples(model: Artifact) -> list[TrainingExample]:
    """What the model learnt from, as its training read it."""
    rows = model.read_settings(TrainSettings).rows
    assert isinstance(rows, RationaleRows), "an exported arm was trained on rationales"
    return build_training_examples(
        model.get_input("pool"), find_rationales(model), rows.target_format
    )


def _format_command(run: FinishedRun) -> str:
    asked = run.metadata
    wanted = Comparison(
        asked.methods,
        tuple(range(run.recipe.seed, run.recipe.seed + asked.n_seeds)),
        asked.budgets or (None,),
    )
    return wanted.format_command(run.recipe)


@contextmanager
def _write_atomic_folder(to: Path) -> Iterator[Path]:
    """An empty folder beside `to` that takes its place at the end and goes if there is none.

    What a killed process left there is cleared by the next one; a lock keeps two apart.
    """
    to = to.expanduser().absolute()
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        what = "holds something" if to.is_dir() else "is a file"
        raise InputError(f"{to} {what} already; export to another folder, or move it away")
    partial = to.with_name(f".{to.name}.partial")
    with translate_disk_errors(to, named="folder"):
        to.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(partial.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout as exc:
            raise InputError(f"another process is exporting to {to}; wait for it") from exc
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            yield partial
            fsync_files(partial)
            os.rename(partial, to)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()
