"""What a stage may touch while it works and what is not hashed: it changes no result."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bridgekd.config import AssistantServer, RuntimeOptions, Teacher
from bridgekd.progress import Progress, silent
from bridgekd.records import StepCount

Checker = Callable[[str, str], StepCount | None]  # (question, rationale); None: it cannot tell


@dataclass(frozen=True, slots=True)
class Live:
    """The device and how it is used, the ways to the teacher and to the assistant's server, the
    ledger file, the recipe's folder, step checkers by name, and who looks on (`note` gets
    sentences).
    """

    run: str
    teacher: Teacher
    ledger: Path
    hard_stop_usd: float | None = None
    device: str = "cpu"
    runtime: RuntimeOptions = field(default_factory=RuntimeOptions)
    server: AssistantServer | None = None
    folder: Path = field(default=Path())
    checkers: Mapping[str, Checker] = field(default_factory=dict, repr=False)
    progress: Progress = field(default=silent, repr=False)
    note: Callable[[str], None] = field(default=lambda text: None, repr=False)
