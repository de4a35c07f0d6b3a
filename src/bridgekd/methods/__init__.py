"""The methods, one file each. A method is an ordinary function that calls stages in order.

Read `bridge.py` first. A method of your own is a file that ends in `METHOD = Method(...)`. A recipe
names it with `method: {file: my_method.py}`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from bridgekd.io.artifact_store import Artifact
from bridgekd.runs.run import Arm, Run
from bridgekd.stages.early_stopping import PromptMode
from bridgekd.variants import NoOptions, Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A way to teach a student. `build(run, options)` makes its models and returns them as arms.

    card_sentence: how the student was made, for the card of an exported model.
    rank: tables list the results of several methods in ascending rank, and the headline shows the
    highest one. A method without a rank belongs to the user and has the highest.
    """

    name: str
    title: str
    summary: str
    paper: str
    card_sentence: str
    build: Callable[[Run, Any], list[Arm]]
    options: type[BaseModel] = NoOptions
    rank: int = 1000

    def build_result_arm(self, title: str, student: Artifact, prompt_mode: PromptMode) -> Arm:
        """Return the student that the method is for, as an arm with the method's name."""
        return Arm(
            self.name, title, student, "student", prompt_mode,
            is_result=True, card_sentence=self.card_sentence,
        )  # fmt: skip


METHODS: Registry[Method] = Registry("method", "bridgekd.methods", "METHOD", Method)
