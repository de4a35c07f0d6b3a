"""Prompts with in-context examples for a local model: earlier turns with a rationale each."""

from collections.abc import Sequence
from dataclasses import dataclass

from bridgekd import lm
from bridgekd.io.artifact_store import Artifact
from bridgekd.io.read_pool import index_by_id, read_few_shot, read_pool
from bridgekd.io.sources import get_model_and_revision, read_context_length
from bridgekd.prompts import ANSWER_PREFIX, COT_INSTRUCTION, format_answer, render_cot_prompt
from bridgekd.records import Example, Message, Rationale
from bridgekd.stages.run_context import RunContext
from bridgekd.stages.training_examples import read_rationales

Turns = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Shot:
    """One in-context example: the prompt for a rationale, and the answer. `id`: of its question in
    the pool, or "".
    """

    id: str
    turns: Turns


def read_shots(
    pool: Artifact, rationales: Sequence[Artifact], few_shot: Sequence[Artifact]
) -> list[Shot]:
    """Return the examples of `few_shot` files, then the kept `rationales`, the first of each
    question.
    """
    shots = [
        Shot("", (Message("user", f"{question}\n{COT_INSTRUCTION}"), _build_turn(text, answer)))
        for question, text, answer in read_few_shot(few_shot)
    ]
    kept: dict[str, Rationale] = {}
    for row in read_rationales(rationales):
        if row.kept:
            kept.setdefault(row.id, row)
    examples = index_by_id(read_pool(pool), kept)
    for id, row in kept.items():
        example = examples[id]
        answer = row.answer if example.answer is None else format_answer(example)
        shots.append(Shot(id, (*render_cot_prompt(example), _build_turn(row.text, answer))))
    return shots


def _build_turn(text: str, answer: str) -> Message:
    return Message("assistant", f"{text}\n{ANSWER_PREFIX} {answer}")


def render_with_shots(example: Example, shots: Sequence[Shot]) -> Turns:
    """Return the prompt for a rationale after the shots of other questions."""
    turns = [turn for shot in shots if shot.id != example.id for turn in shot.turns]
    return (*turns, *render_cot_prompt(example))


def choose_fitting_shots(
    shots: Sequence[Shot],
    examples: Sequence[Example],
    model: Artifact,
    max_new_tokens: int,
    ctx: RunContext,
) -> Sequence[Shot]:
    """Return the first shots that a model can read before the longest question and a text of
    `max_new_tokens`. A user is told if these are not all.
    """
    n_context = read_context_length(model)
    if n_context is None or not shots:
        return shots
    longest = max(examples, key=lambda e: len(e.question) + sum(map(len, e.choices)))
    prompts = [render_with_shots(longest, shots[:n]) for n in range(len(shots) + 1)]
    n_tokens = lm.count_prompt_tokens(*get_model_and_revision(model), prompts)
    fitting = [n for n, count in enumerate(n_tokens) if count + max_new_tokens <= n_context]
    n = max(fitting, default=0)
    if n < len(shots):
        ctx.notify(
            f"The assistant can read {n_context:,} tokens, so its prompts have {n} of {len(shots)} "
            "in-context examples. Lower assistant.max_new_tokens, or use another assistant."
        )
    return shots[:n]
