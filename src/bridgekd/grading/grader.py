"""The grader as a variant: the rules of one type of answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import BaseModel

OptionsT = TypeVar("OptionsT", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grader(Generic[OptionsT]):
    """The rules of one type of answer. `choices` are the question's choices, or ().

    canonicalize(answer, choices, options): the form in which equal answers are equal strings; "" if
    the answer is not of this type. It must not change its own result.
    match(answer, gold, choices, options): whether two answers, both as written and both of this
    type, have the same meaning.
    find_unmarked_answer(text, choices, options): the canonical answer of a text without a marked,
    boxed or stated answer that is no refusal; "" if there is none.
    clean_gold(answer, choices, options): the gold answer in the form that the student is trained
    on.
    is_gold(answer, choices, options): whether a text of the data is a gold answer of this type.
    It is stricter than `canonicalize`: a model's answer may go on, a gold answer may not.
    has_choices: whether every question has choices, one of which is the answer.
    compares_labels: whether `match` gets the labels of the data as `choices`.
    """

    name: str
    title: str
    summary: str
    paper: str = ""
    options: type[OptionsT]
    canonicalize: Callable[[str, Sequence[str], OptionsT], str]
    match: Callable[[str, str, Sequence[str], OptionsT], bool]
    find_unmarked_answer: Callable[[str, Sequence[str], OptionsT], str]
    clean_gold: Callable[[str, Sequence[str], OptionsT], str] = lambda answer, *_: answer
    is_gold: Callable[[str, Sequence[str], OptionsT], bool] | None = None
    has_choices: bool = False
    compares_labels: bool = False
