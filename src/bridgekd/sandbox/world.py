"""The sandbox world: questions, exact answers, a teacher's replies and a check of every step.

All functions are pure and work from the text of the question, so the teacher server needs no list
of questions. A `Step` is one step with its slots (see phrases.py).
"""

import random
import re
from collections.abc import Collection
from dataclasses import dataclass

from bridgekd.prompts import ANSWER_PREFIX
from bridgekd.records import Example
from bridgekd.sandbox.domains import (
    DOMAIN_WEIGHTS,
    DOMAINS,
    MAX_EURO,
    ORDINALS,
    PLACES,
    Event,
    Problem,
    apply_event,
    format_sentence,
    normalize_text,
    parse_problem,
    render_problem,
    sample_problem,
)
from bridgekd.sandbox.phrases import N_STYLES, Slots, parse_step, render_step

WRONG_RATE = 0.10
OTHER_STYLE_RATE = 0.1  # fraction of steps in another style than the rest of the rationale
MERGED_RATE = 0.2  # fraction of steps that share a sentence with the step before


@dataclass(frozen=True, slots=True)
class Step:
    """One step: its kind and slots, as in phrases.py."""

    kind: str
    slots: Slots


@dataclass(frozen=True, slots=True)
class Solution:
    """The steps of a question in order, with the closing step, and its answer."""

    steps: tuple[Step, ...]
    answer: str


@dataclass(frozen=True, slots=True)
class StepReport:
    """The result of `check_steps`. A merged step counts as the steps that it consists of.

    A step is wrong if it does not follow from the question and the earlier steps of the rationale.
    So a mistake counts once, and not again in later steps that use its result. `n_unread` clauses
    are not understood. `n_missing` steps of the solution are not in the rationale.
    """

    n_steps: int
    n_wrong: int
    n_unread: int
    n_missing: int


def generate_examples(n: int, seed: int, exclude: Collection[str] = ()) -> list[Example]:
    """Return `n` examples of all domains with different questions that are not in `exclude`."""
    rng = random.Random(f"world:{seed}")
    seen = set(exclude)
    rows: list[Example] = []
    while len(rows) < n:
        domain = rng.choices(DOMAINS, DOMAIN_WEIGHTS)[0]
        question = render_problem(sample_problem(rng, domain), rng)
        if question in seen:
            continue
        seen.add(question)
        answer = solve(question).answer
        rows.append(Example(f"{seed}-{len(rows):05d}", question, answer, domain=domain))
    return rows


def solve(question: str) -> Solution:
    """Return the exact steps and answer. Raises ValueError for a text without such a question."""
    return _derive_steps(parse_problem(question), slip_at=None, rng=random.Random(0))


def generate_rationale(question: str, seed: int, *, wrong: bool = False) -> tuple[str, str]:
    """Return a teacher's rationale and its answer.

    wrong: the rationale has one mistake, which makes the answer wrong.
    """
    rng = random.Random(f"explain:{seed}:{normalize_text(question)}")
    problem = parse_problem(question)
    solution = _derive_wrong_solution(problem, rng) if wrong else solve(question)
    return _render_steps(solution.steps, rng), solution.answer


def generate_reply(question: str, seed: int, wrong_rate: float = WRONG_RATE) -> str:
    """Return the text of a teacher: a rationale, then the line `Answer: <answer>`.

    The reply depends on `seed` and the question itself, not on other lines around it.
    """
    plain = render_problem(parse_problem(question), random.Random(0))
    wrong = random.Random(f"wrong:{seed}:{plain}").random() < wrong_rate
    rationale, answer = generate_rationale(plain, seed, wrong=wrong)
    return f"{rationale}\n{ANSWER_PREFIX} {answer}"


def _list_steps(problem: Problem) -> list[tuple[str, Event]]:
    """Return (ordinal, event) of every step in order.

    A payment is two steps; the ordinal of the second one is `also`.
    """
    steps = []
    for ordinal, event in zip(ORDINALS, problem.events, strict=False):
        if event.kind == "pay":
            steps.append((ordinal, Event("spend", event.who, "", event.what)))
            steps.append(("also", Event("earn", event.other, "", event.what)))
        else:
            steps.append((ordinal, event))
    return steps


def _derive_step(state: dict[str, str], ordinal: str, event: Event) -> Step:
    """Return the step that follows from `state`."""
    a, b, after = event.who, event.other, dict(state)
    apply_event(after, event)
    slots = {"o": ordinal, "a": a, "c": after[a]}
    match event.kind:
        case "move":
            return Step("move", slots | {"q": event.what})
        case "swap":
            return Step("swap", slots | {"b": b, "p": state[a], "q": state[b], "d": after[b]})
        case "join":
            return Step("join", slots | {"b": b, "q": state[b]})
    kind = "plus" if event.kind == "earn" else "minus"
    return Step(kind, slots | {"n": event.what, "h": state[a], "r": after[a]})


def _apply_step(state: dict[str, str], step: Step) -> None:
    """Write the conclusions of the step to `state`."""
    if step.kind in ("rule", "rule_twice"):
        state["case"] = step.slots["c"]
        return
    state[step.slots["a"]] = step.slots["c"]
    if step.kind == "swap":
        state[step.slots["b"]] = step.slots["d"]


def _derive_steps(problem: Problem, slip_at: int | None, rng: random.Random) -> Solution:
    """Return all steps. Step `slip_at` has a mistake, and later steps use its result."""
    state = dict(problem.facts)
    steps: list[Step] = []
    if problem.domain == "statute":
        rules = {event.who: event.what for event in problem.events}
        while state["case"] in rules:
            x = state["case"]
            y = rules[x]
            if len(steps) == slip_at:
                y = rng.choice(sorted(set(rules.values()) - {y, x}))
            steps.append(Step("rule", {"x": x, "y": y, "c": y}))
            _apply_step(state, steps[-1])
            if len(steps) > len(rules):
                raise ValueError("The rules of the question form a cycle.")
    else:
        for ordinal, event in _list_steps(problem):
            step = _derive_step(state, ordinal, event)
            if len(steps) == slip_at:
                step = _corrupt_step(step, state, rng)
            steps.append(step)
            _apply_step(state, step)
    answer = state[problem.target]
    steps.append(Step(f"end_{problem.domain}", {"a": problem.target, "c": answer}))
    return Solution(tuple(steps), answer)


def _corrupt_step(step: Step, state: dict[str, str], rng: random.Random) -> Step:
    """Return the step with a wrong conclusion: a wrong place, no exchange, or a wrong sum."""
    slots = dict(step.slots)
    if step.kind in ("plus", "minus"):
        right = int(slots["r"])
        near = [right + off for off in (-2, -1, 1, 2) if 0 <= right + off <= MAX_EURO]
        slots["r"] = slots["c"] = str(rng.choice(near))
    elif step.kind == "swap" and rng.random() < 0.5:
        slots["c"], slots["d"] = slots["p"], slots["q"]
    else:
        others = sorted({*state.values(), *rng.sample(PLACES, 2)} - {slots["c"]})
        slots[rng.choice("cd") if step.kind == "swap" else "c"] = rng.choice(others)
    return Step(step.kind, slots)


def _derive_wrong_solution(problem: Problem, rng: random.Random) -> Solution:
    """Return a solution with one mistake that makes the answer wrong."""
    right = _derive_steps(problem, None, rng)
    while True:
        slip_at = rng.randrange(len(right.steps) - 1)
        try:
            wrong = _derive_steps(problem, slip_at, rng)
        except ValueError:
            continue  # the wrong rule leads to a cycle
        if wrong.answer != right.answer and wrong.steps != right.steps and _is_in_range(wrong):
            return wrong


def _is_in_range(solution: Solution) -> bool:
    results = [step.slots["r"] for step in solution.steps if "r" in step.slots]
    return all(0 <= int(result) <= MAX_EURO for result in results)


def _render_steps(steps: tuple[Step, ...], rng: random.Random) -> str:
    """Return the steps as sentences: most in one style, some of them merged."""
    style = rng.randrange(N_STYLES)
    sentences: list[str] = []
    todo = list(steps)
    while todo:
        step = todo.pop(0)
        merge = bool(sentences) and rng.random() < MERGED_RATE and not step.kind.startswith("end")
        if step.kind == "rule" and todo and todo[0].kind == "rule" and rng.random() < MERGED_RATE:
            x, y, z = step.slots["x"], step.slots["y"], todo.pop(0).slots["y"]
            step, merge = Step("rule_twice", {"x": x, "y": y, "z": z, "c": z}), False
        own = rng.randrange(N_STYLES) if rng.random() < OTHER_STYLE_RATE else style
        clause = render_step(step.kind, own, step.slots)
        if merge:
            sentences[-1] += f"; {clause}"
        else:
            sentences.append(clause)
    return " ".join(format_sentence(text) for text in sentences)


def check_steps(question: str, rationale: str) -> StepReport:
    """Count the steps and mistakes of a rationale. Case, spaces and the answer line are ignored.

    Raises ValueError if `question` is not a question of the world.
    """
    problem = parse_problem(question)
    state = dict(problem.facts)
    body = re.split(rf"(?i)\b{ANSWER_PREFIX}", rationale)[0]
    todo = _list_steps(problem)
    n_steps = n_wrong = n_unread = 0
    for clause in _split_clauses(body):
        if (parsed := parse_step(problem.domain, clause)) is None:
            n_unread += 1
            continue
        kind, slots, agree = parsed
        step = Step(kind, slots)
        if kind.startswith("end"):
            right, size = slots.get("a", "case") == problem.target, 1
            right = right and slots["c"] == state[problem.target]
        elif problem.domain == "statute":
            right, size = _is_valid_rule(problem, state, step), 2 if kind == "rule_twice" else 1
            _apply_step(state, step)
        else:
            right, size = _is_valid_step(todo, state, step), 1
            _apply_step(state, step)
        n_steps += size
        n_wrong += not (right and agree)
    n_missing = max(0, len(solve(question).steps) - n_steps)
    return StepReport(n_steps, n_wrong, n_unread, n_missing)


def _split_clauses(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"[.;]", normalize_text(text)) if part.strip()]


def _is_valid_rule(problem: Problem, state: dict[str, str], step: Step) -> bool:
    rules = {event.who: event.what for event in problem.events}
    x, y, z = step.slots["x"], step.slots["y"], step.slots.get("z")
    is_read_right = state["case"] == x and rules.get(x) == y
    if z is None:
        return is_read_right and step.slots["c"] == y
    return is_read_right and rules.get(y) == z and step.slots["c"] == z


def _is_valid_step(todo: list[tuple[str, Event]], state: dict[str, str], step: Step) -> bool:
    """Return whether the step is the next one and right. Remove it and skipped ones from `todo`."""
    if not todo:
        return False
    ordinal, event = todo.pop(0)
    if step.slots["o"] != ordinal:
        while step.slots["o"] in (later := [o for o, _ in todo]) and later[0] != step.slots["o"]:
            todo.pop(0)
        if todo and todo[0][0] == step.slots["o"]:
            todo.pop(0)
        return False
    return step == _derive_step(state, ordinal, event)
