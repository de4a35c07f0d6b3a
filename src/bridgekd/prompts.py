"""The one place that renders a prompt, for the teacher and for the local models.

A local model gets one of three prompts: for the answer alone (warm-up and scoring), for a rationale
that ends in the answer, and for a judgment whether a proposed answer is correct. A target is always
`<rationale>\\nAnswer: <answer>` or `Answer: <answer>`, so the position of the answer is known.
"""

import re
from collections.abc import Sequence

from bridgekd.records import Example, Message, TargetSpan

ANSWER_PREFIX = "Answer:"
ANSWER_INSTRUCTION = "Give the answer only."
COT_INSTRUCTION = "Think step by step, then give the answer."
TEACHER_SYSTEM = (
    "Solve the problem. Think step by step and state every step in a short sentence. "
    "End with one last line that starts with 'Answer:' and holds the final answer only."
)
REVEALED_ANSWER = "\n\nThe correct answer is {answer}. Explain how to arrive at it."
SOLUTION = (
    "Here is a correct solution:\n{solution}\nNow solve the problem yourself, in your own words."
)
JUDGE_INSTRUCTION = "Is the proposed answer correct? True or False"
JUDGE_LABELS = ("True", "False")
# What ends a local model's text: a whole line that starts with the mark, and the next one with
# something in it where no text follows the mark. What a model adds is not its answer.
ANSWER_LINE = re.compile(rf"^[^\w\n]*{ANSWER_PREFIX}\W*\w[^\n]*\n", re.MULTILINE)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def render_choices(choices: Sequence[str]) -> str:
    """Return one line per choice, such as `(A) first`; "" for an open question."""
    return "\n".join(f"({LETTERS[i]}) {choice}" for i, choice in enumerate(choices))


def render_question(example: Example) -> str:
    """Return the question with its choices below it."""
    options = render_choices(example.choices)
    return f"{example.question}\n{options}" if options else example.question


def render_answer_prompt(example: Example) -> tuple[Message, ...]:
    """Return the prompt for the answer alone."""
    return (Message("user", f"{render_question(example)}\n{ANSWER_INSTRUCTION}"),)


def render_cot_prompt(example: Example) -> tuple[Message, ...]:
    """Return the prompt for a rationale that ends in the answer."""
    return (Message("user", f"{render_question(example)}\n{COT_INSTRUCTION}"),)


def render_judge_prompt(example: Example, proposed: str) -> tuple[Message, ...]:
    """Return the prompt that asks whether `proposed`, an answer or a rationale, is correct.

    Source: the P(True) prompt of Kadavath et al. 2022 (arXiv 2207.05221). The wording is ours.
    """
    text = f"{render_question(example)}\nProposed answer:\n{proposed.strip()}\n{JUDGE_INSTRUCTION}"
    return (Message("user", text),)


def add_solution(prompt: Sequence[Message], solution: str) -> tuple[Message, ...]:
    """Return a prompt whose last message also has a solution of the question.

    A reference model that reads it knows what the student has to find. The idea is that of OPSD
    (arXiv 2601.18734); the wording is ours.
    """
    *before, last = prompt
    return (*before, Message(last.role, f"{last.content}\n{SOLUTION.format(solution=solution)}"))


def build_answer_target(answer: str, weight: float = 1.0) -> tuple[TargetSpan, ...]:
    """Return the target that is the answer alone."""
    return (TargetSpan(f"{ANSWER_PREFIX} {answer}", weight),)


def build_cot_target(rationale: str, answer: str, answer_weight: float) -> tuple[TargetSpan, ...]:
    """Return the rationale, then the answer, whose tokens have the weight `answer_weight`."""
    return (TargetSpan(f"{rationale}\n"), TargetSpan(f"{ANSWER_PREFIX} {answer}", answer_weight))


def format_answer(example: Example) -> str:
    """Return the gold answer as a model should write it. A choice has its letter: `(B) text`."""
    if example.answer is None:
        raise ValueError(f"example {example.id} has no gold answer")
    if example.answer in example.choices:
        return f"({LETTERS[example.choices.index(example.answer)]}) {example.answer}"
    return example.answer


def render_teacher_prompt(
    example: Example,
    *,
    system: str | None = None,
    template: str | None = None,
    reveal_answer: bool = False,
    shots: Sequence[tuple[str, str, str]] = (),
) -> tuple[Message, ...]:
    """Return the messages that the teacher gets for one question.

    template: may have {question}, {choices} and {answer}; None is the question with its choices.
    shots: (question, rationale, answer) of few-shot turns. reveal_answer: the prompt has the gold
    answer, and the teacher explains it. Do not use this where the answer is measured.
    """
    turns = [Message("system", TEACHER_SYSTEM if system is None else system)]
    for question, rationale, answer in shots:
        turns.append(Message("user", question))
        turns.append(Message("assistant", f"{rationale}\n{ANSWER_PREFIX} {answer}"))
    text = render_question(example)
    if template is not None:
        parts = {
            "question": example.question,
            "choices": render_choices(example.choices),
            "answer": format_answer(example) if reveal_answer else "",
        }
        text = re.sub(r"\{(question|choices|answer)\}", lambda m: parts[m[1]], template)
    elif reveal_answer:
        text += REVEALED_ANSWER.format(answer=format_answer(example))
    turns.append(Message("user", text))
    return tuple(turn for turn in turns if turn.content)
