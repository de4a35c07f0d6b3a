"""What a stage may use while it works. It changes no result, so it is in no fingerprint."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bridgekd.progress import Progress, ignore_progress
from bridgekd.recipe import AssistantServerOptions, CheckOptions, RuntimeOptions, TeacherOptions
from bridgekd.records import StepCount

StepChecker = Callable[[str, str], StepCount | None]  # (question, rationale); None: not countable


@dataclass(frozen=True, slots=True)
class RunContext:
    """The environment of a run.

    check: its `max_dropped` stops a purchase whose answers are all dropped. recipe_folder: the base
    of relative paths. checkers: step checkers by name. notify: called with messages for the user.
    """

    run: str
    teacher: TeacherOptions
    ledger: Path
    hard_limit_usd: float | None = None
    check: CheckOptions = field(default_factory=CheckOptions)
    device: str = "cpu"
    runtime: RuntimeOptions = field(default_factory=RuntimeOptions)
    server: AssistantServerOptions | None = None
    recipe_folder: Path = field(default=Path())
    checkers: Mapping[str, StepChecker] = field(default_factory=dict, repr=False)
    progress: Progress = field(default=ignore_progress, repr=False)
    notify: Callable[[str], None] = field(default=lambda text: None, repr=False)
