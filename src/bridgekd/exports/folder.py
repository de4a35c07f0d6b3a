"""The exported folder. It is written beside its destination and renamed when it is complete."""

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
from bridgekd.io.disk import fsync_files, make_private_folder, translate_disk_errors
from bridgekd.progress import Progress, ignore_progress
from bridgekd.records import TrainingExample
from bridgekd.runs.metadata import FinishedRun
from bridgekd.stages.row_settings import RationaleRows
from bridgekd.stages.train import TrainSettings
from bridgekd.stages.training_examples import build_training_examples
from bridgekd.targets import TARGET_FORMATS

N_CHECKED = 20  # training prompts that check the exported tokenizer
N_STEPS = 3


@dataclass(frozen=True, slots=True)
class ExportResult:
    """The exported folder. `notes` are sentences for the user of the folder."""

    folder: Path
    arm: str
    n_rows: int
    dtype: str
    notes: tuple[str, ...]


def export_arm(
    run: FinishedRun, to: Path, arm: str | None = None, progress: Progress = ignore_progress
) -> ExportResult:
    """Write one arm of a run to the folder `to`, which must be new or empty.

    The arm is a model that was trained on rationales; None is the student of the run's method.
    Raises InputError for another arm and for a folder that is not empty, and the errors of
    `lm.load_model`.
    """
    selected = run.get_arm(arm)
    with _write_atomic_folder(to) as output_dir:
        TARGET_FORMATS.resolve(run.recipe.student.target_format, run.folder)  # loads its file
        examples = _read_training_examples(selected.model)
        progress("export", 0, N_STEPS)
        merged = lm.merge_adapter(
            str(selected.model.path),
            output_dir,
            max_new_tokens=selected.max_new_tokens,
            prompts=[example.prompt for example in examples[:N_CHECKED]],
        )
        progress("export", 1, N_STEPS)
        data_dir = output_dir / "data"
        write_sft_rows(data_dir, examples)
        progress("export", 2, N_STEPS)
        exported = ExportedArm(run, selected, examples, merged, _format_command(run))
        (output_dir / "README.md").write_text(render_model_card(exported), encoding="utf-8")
        (data_dir / "README.md").write_text(render_dataset_card(exported), encoding="utf-8")
    progress("export", N_STEPS, N_STEPS)
    return ExportResult(to, selected.name, len(examples), merged.dtype, merged.notes)


def _read_training_examples(model: Artifact) -> list[TrainingExample]:
    """Return the training examples of a model, as its training read them."""
    rows = model.read_settings(TrainSettings).rows
    assert isinstance(rows, RationaleRows), "an exported arm was trained on rationales"
    return build_training_examples(
        model.get_input("pool"), model.get_inputs("rationales"), rows.target_format
    )


def _format_command(run: FinishedRun) -> str:
    metadata, seed = run.metadata, run.recipe.seed
    comparison = Comparison(
        metadata.methods,
        tuple(range(seed, seed + metadata.n_seeds)),
        metadata.budgets or (None,),
    )
    return comparison.format_command(run.recipe)


@contextmanager
def _write_atomic_folder(to: Path) -> Iterator[Path]:
    """Yield an empty folder that is renamed to `to` at the end, or removed after an error.

    The next export removes what a killed process left. A lock refuses two exports to one folder.
    """
    to = to.expanduser().absolute()
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        problem = "is not empty" if to.is_dir() else "is a file"
        raise InputError(f"{to} {problem}. Export to another folder, or move it.")
    partial = to.with_name(f".{to.name}.partial")
    with translate_disk_errors(to, named="folder"):
        to.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(partial.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout as exc:
            raise InputError(f"Another process is exporting to {to}. Wait for it.") from exc
        try:
            shutil.rmtree(partial, ignore_errors=True)
            make_private_folder(partial)
            yield partial
            fsync_files(partial)
            os.rename(partial, to)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()
