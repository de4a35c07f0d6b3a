"""Methods, one file each: an ordinary function that calls stages in order. Read `bridge.py` first.

A file of your own ends in `METHOD = Method(...)`, and a recipe names it with
`method: {file: my_method.py}`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from bridgekd.runs.run import Arm, Run
from bridgekd.variants import NoOptions, Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A way to teach a student. `build(run, options)` makes its models and returns them as arms.

    The arm that the method is for has the method's name and `is_result`. `card_sentence` says in
    an exported model's card how the student was made. `rank`: of the results of several methods,
    tables list them in ascending rank, and the headline is about the highest; a method that no one
    ranked is the user's own, and is the highest.
    """

    name: str
    title: str
    summary: str
    paper: str
    card_sentence: str
    build: Callable[[Run, Any], list[Arm]]
    options: type[BaseModel] = NoOptions
    rank: int = 1000


METHODS: Registry[Method] = Registry("method", "bridgekd.methods", "METHOD", Method)
