"""Target formats, one file each: the training rows that a kept rationale becomes.

A format is a pure function. A file of your own ends in `TARGET_FORMAT = TargetFormat(...)`, and a
recipe names it with `student.target_format: {file: my_format.py}`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from bridgekd.records import Example, Rationale, TrainingExample
from bridgekd.variants import NoOptions, Registry


@dataclass(frozen=True, slots=True)
class TargetFormat:
    """`build(example, rationale, answer, options)` returns the rows of one kept rationale. `answer`
    is what the model should learn, as text. `options` is a frozen pydantic model.

    writes_rationale: whether the trained model is asked for a rationale before its answer, or for
    the answer alone.
    """

    name: str
    title: str
    summary: str
    paper: str
    build: Callable[[Example, Rationale, str, Any], list[TrainingExample]]
    options: type[BaseModel] = NoOptions
    writes_rationale: bool = True


TARGET_FORMATS: Registry[TargetFormat] = Registry(
    "target format", "bridgekd.targets", "TARGET_FORMAT", TargetFormat
)
