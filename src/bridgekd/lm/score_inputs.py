"""Questions and what may follow them, as tokens: the rows that scoring passes through a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from bridgekd.errors import InputError
from bridgekd.lm.forward import ScoringRow
from bridgekd.lm.tokenization import render_prompt, tokenize_continuations
from bridgekd.prompts import (
    ANSWER_PREFIX,
    LETTERS,
    format_answer,
    render_answer_prompt,
    render_question,
)
from bridgekd.records import Example


class HasTokenizer(Protocol):
    """Whatever has a tokenizer: a model, or what is known here of one that runs elsewhere."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase: ...


@dataclass(frozen=True, slots=True)
class TokenizedPrompt:
    """The answer prompt's tokens, and which of them are the question's (options included).

    All are, where the tokenizer gives no offsets or the template alters the question.
    """

    ids: tuple[int, ...]
    is_question: tuple[bool, ...]

    def append(self, target: Sequence[int], n_scored: int) -> ScoringRow:
        """The row of this prompt and `target`, of which the last `n_scored` tokens count."""
        return ScoringRow((*self.ids, *target), self.is_question, n_scored)


def tokenize_answer_prompts(
    local: HasTokenizer, examples: Sequence[Example]
) -> list[TokenizedPrompt]:
    """Every example's answer prompt, in order."""
    if not examples:
        return []
    tokenizer = local.tokenizer
    texts = [render_prompt(tokenizer, render_answer_prompt(example)) for example in examples]
    encoding = tokenizer(
        texts, add_special_tokens=False, return_offsets_mapping=tokenizer.is_fast, verbose=False
    )
    offsets = encoding["offset_mapping"] if tokenizer.is_fast else [None] * len(texts)
    return [
        TokenizedPrompt(
            tuple(ids), _mark_question(text, render_question(example), spans) or (True,) * len(ids)
        )
        for example, text, ids, spans in zip(
            examples, texts, encoding["input_ids"], offsets, strict=True
        )
    ]


def _mark_question(
    text: str, question: str, spans: Sequence[tuple[int, int]] | None
) -> tuple[bool, ...] | None:
    """Which tokens lie in the question, by their places in the text; None if that is unknown."""
    start = text.find(question)
    if spans is None or start < 0:
        return None
    end = start + len(question)
    marks = tuple(a < end and b > start and a < b for a, b in spans)
    return marks if any(marks) else None


def tokenize_answers(local: HasTokenizer, answers: Sequence[str]) -> list[tuple[list[int], int]]:
    """(tokens of `Answer: <answer>`, how many of them are the answer's own) of each answer.

    The mark's tokens are the leading ones shared with `Answer: `, with and without the space that
    some tokenizers keep apart.
    """
    mark = tokenize_continuations(local.tokenizer, [f"{ANSWER_PREFIX} "])[0]
    texts = tokenize_continuations(
        local.tokenizer, [f"{ANSWER_PREFIX} {answer}" for answer in answers]
    )
    return [(target, len(target) - _count_shared_prefix(mark, target)) for target in texts]


def build_gold_rows(local: HasTokenizer, examples: Sequence[Example]) -> list[ScoringRow]:
    """Every example's prompt and gold answer; InputError for one without an answer or its "
    "tokens."""
    for example in examples:
        if not example.answer:
            raise InputError(
                f"example {example.id} has no gold answer, so its loss cannot be scored"
            )
    gold = tokenize_answers(local, [format_answer(example) for example in examples])
    for example, (_, n_own) in zip(examples, gold, strict=True):
        if not n_own:
            raise InputError(
                f"the gold answer {example.answer!r} of example {example.id} has no tokens"
            )
    return [
        asked.append(target, n_own)
        for asked, (target, n_own) in zip(
            tokenize_answer_prompts(local, examples), gold, strict=True
        )
    ]


def tokenize_answer_prefix(local: HasTokenizer) -> list[int]:
    """The tokens of the mark that stand before any answer: where a free answer is continued."""
    empty, *full = tokenize_continuations(
        local.tokenizer, [f"{ANSWER_PREFIX} {text}" for text in ("", "a", "7")]
    )
    return empty[: min(_count_shared_prefix(empty, ids) for ids in full)]


def format_choices(example: Example) -> list[str]:
    """The options as a model should write them: `(B) text`."""
    return [f"({LETTERS[i]}) {choice}" for i, choice in enumerate(example.choices)]


def _count_shared_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    pairs = zip(one, other, strict=False)
    return next((k for k, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
