"""Selectors, one file each: which of a question's rationales the student learns from.

A selector is a pure function of the rationales that the filters kept. A file of your own ends in
`SELECTOR = Selector(...)`, and a recipe names it with `student.selector: {file: my_selector.py}`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from bridgekd.variants import Registry


class KeepOptions(BaseModel):
    """n_kept: rationales of a question that are kept, at most."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_kept: int = Field(1, ge=1, le=64)


@dataclass(frozen=True, slots=True)
class SentenceScore:
    """The geometric mean of the token probabilities of a sentence, in [0, 1], given the question
    and the sentences before it: for the assistant and for the student.
    """

    assistant: float
    student: float


@dataclass(frozen=True, slots=True)
class Candidates:
    """The n rationales of one question, the teacher's first, then in the order of sampling.

    texts [n], without the answer line. n_tokens [n], in tokens of the student. confidences [n]:
    geometric mean of the assistant's token probabilities, in [0, 1]; empty unless the selector
    needs it. sentences [n]: the scores of each rationale's sentences; empty unless it needs them.
    """

    texts: Sequence[str]
    n_tokens: Sequence[int]
    confidences: Sequence[float] = ()
    sentences: Sequence[Sequence[SentenceScore]] = ()


@dataclass(frozen=True, slots=True)
class Selector:
    """`select(candidates, options)` returns the positions of the rationales to keep, at least one,
    the best first. `options` is a frozen pydantic model.
    """

    name: str
    title: str
    summary: str
    paper: str
    select: Callable[[Candidates, Any], list[int]]
    options: type[BaseModel] = KeepOptions
    needs_confidence: bool = False
    needs_sentences: bool = False


def keep_first(keys: Sequence[float], n_kept: int) -> list[int]:
    """Return the positions of the `n_kept` smallest keys; of equal ones the first.

    >>> keep_first([3, 1, 2, 1], 3)
    [1, 3, 2]
    """
    return sorted(range(len(keys)), key=lambda i: keys[i])[:n_kept]


SELECTORS: Registry[Selector] = Registry("selector", "bridgekd.rationales", "SELECTOR", Selector)
