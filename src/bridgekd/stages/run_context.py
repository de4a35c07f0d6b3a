"""What a stage may touch while it works and what is not hashed: it changes no result."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bridgekd.progress import Progress, ignore_progress
from bridgekd.recipe import AssistantServerOptions, RuntimeOptions, TeacherOptions
from bridgekd.records import StepCount

StepChecker = Callable[[str, str], StepCount | None]  # (question, rationale); None: it cannot tell


@dataclass(frozen=True, slots=True)
class RunContext:
    """The device and how it is used, the ways to the teacher and to the assistant's server, the
    ledger file, the recipe's folder, step checkers by name, and who looks on (`note` gets
    sentences).
    """

    run: str
    teacher: TeacherOptions
    ledger: Path
    hard_stop_usd: float | None = None
    device: str = "cpu"
    runtime: RuntimeOptions = field(default_factory=RuntimeOptions)
    server: AssistantServerOptions | None = None
    recipe_folder: Path = field(default=Path())
    checkers: Mapping[str, StepChecker] = field(default_factory=dict, repr=False)
    progress: Progress = field(default=ignore_progress, repr=False)
    notify: Callable[[str], None] = field(default=lambda text: None, repr=False)
