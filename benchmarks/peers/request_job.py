"""The job that every client does, as its arguments name it, and where its answers go."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

MODEL = "sandbox-teacher"


@dataclass(frozen=True)
class Job:
    """`rate` is the teacher's advertised rate in requests per second, 0 where it has none.

    A client keeps its own files in `folder` and leaves its result in `result` when it is done.
    """

    base_url: str
    n: int
    concurrency: int
    max_tokens: int
    rate: float
    folder: str

    @property
    def prompts(self) -> list[str]:
        return [f"Question {i}: what is {i} and {i}? End with Answer." for i in range(self.n)]

    @property
    def result(self) -> Path:
        return Path(self.folder) / "result.json"

    def begins(self) -> None:
        """To be called just before the first call."""
        (Path(self.folder) / "began").touch()

    def done(self, answered: list[int]) -> None:
        """Writes which questions have an answer in what the user ends up with."""
        self.result.write_text(json.dumps(sorted(answered)))


def from_arguments() -> Job:
    return Job(**json.loads(sys.argv[1]))
