"""Questions and their continuations as tokens: the rows that scoring passes through a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from transformers import PreTrainedTokenizerBase

from bridgekd.errors import InputError
from bridgekd.lm.control_tokens import EncodedText
from bridgekd.lm.forward import ScoringRow
from bridgekd.lm.tokenization import encode_prompts, tokenize_continuations
from bridgekd.prompts import (
    ANSWER_PREFIX,
    LETTERS,
    format_answer,
    render_answer_prompt,
    render_question,
)
from bridgekd.records import Example


@dataclass(frozen=True, slots=True)
class TokenizedPrompt:
    """The tokens of an answer prompt. `is_question` marks those of the question and its choices.

    All tokens are marked if the tokenizer has no offsets or the template changes the question.
    """

    ids: tuple[int, ...]
    is_question: tuple[bool, ...]

    def append(self, target: Sequence[int], n_scored: int) -> ScoringRow:
        """Return the row of this prompt and `target`, whose last `n_scored` tokens are scored."""
        return ScoringRow((*self.ids, *target), self.is_question, n_scored)


def tokenize_answer_prompts(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]
) -> list[TokenizedPrompt]:
    """Return the answer prompt of every example, in order."""
    prompts = encode_prompts(tokenizer, [render_answer_prompt(example) for example in examples])
    return [
        TokenizedPrompt(tuple(prompt.ids), _find_question_tokens(prompt, render_question(example)))
        for example, prompt in zip(examples, prompts, strict=True)
    ]


def _find_question_tokens(prompt: EncodedText, question: str) -> tuple[bool, ...]:
    """Return which tokens overlap the question in the text; all of them if that is unknown."""
    start = prompt.text.find(question)
    end = start + len(question)
    marks = tuple(a < end and b > start and a < b for a, b in prompt.offsets)
    return marks if start >= 0 and any(marks) else (True,) * len(prompt.ids)


def tokenize_answers(
    tokenizer: PreTrainedTokenizerBase, answers: Sequence[str]
) -> list[tuple[list[int], int]]:
    """Return (tokens of `Answer: <answer>`, number of tokens of the answer itself) of each answer.

    The tokens of `Answer:` are the leading tokens that the text shares with `Answer: `, with or
    without the space that some tokenizers keep separate.
    """
    prefix, *targets = tokenize_continuations(
        tokenizer, [f"{ANSWER_PREFIX} {answer}" for answer in ("", *answers)]
    )
    return [(target, len(target) - _count_shared_prefix(prefix, target)) for target in targets]


def build_gold_rows(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]
) -> list[ScoringRow]:
    """Return the prompt and the gold answer of every example.

    Raises InputError for an example without an answer, or whose answer has no tokens.
    """
    for example in examples:
        if not example.answer:
            raise InputError(
                f"Example {example.id} has no gold answer, so its loss cannot be computed."
            )
    gold = tokenize_answers(tokenizer, [format_answer(example) for example in examples])
    for example, (_, n_scored) in zip(examples, gold, strict=True):
        if not n_scored:
            raise InputError(
                f"The gold answer {example.answer!r} of example {example.id} has no tokens."
            )
    prompts = tokenize_answer_prompts(tokenizer, examples)
    return [prompt.append(*target) for prompt, target in zip(prompts, gold, strict=True)]


def tokenize_answer_prefix(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens of `Answer:` that precede every answer; generation continues after them."""
    texts = [f"{ANSWER_PREFIX} {text}" for text in ("", "a", "7")]
    first, *others = tokenize_continuations(tokenizer, texts)
    return first[: min(_count_shared_prefix(first, ids) for ids in others)]


def format_choices(example: Example) -> list[str]:
    """Return the choices as a model should write them: `(B) text`."""
    return [f"({LETTERS[i]}) {choice}" for i, choice in enumerate(example.choices)]


def _count_shared_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    return sum(takewhile(bool, (a == b for a, b in zip(first, second, strict=False))))
