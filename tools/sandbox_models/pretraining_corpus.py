"""Generate generic text of the world: drills of one skill, stories, and chat instructions.

The base models of the sandbox are trained on this text alone. It contains no question of the world
in the format of the tasks, and no sentence of the teacher: story_generator.py rejects such a story.
"""

import random
from dataclasses import dataclass
from itertools import pairwise

from story_generator import ADDS, FACTS, HOLDS, RULES, SWAPS, TAKES, generate_story

from bridgekd.prompts import ANSWER_INSTRUCTION, ANSWER_PREFIX, COT_INSTRUCTION
from bridgekd.records import Message, TargetSpan, TrainingSequence
from bridgekd.sandbox.domains import (
    MAX_EURO,
    NAMES,
    ORDINALS,
    OUTCOMES,
    PLACES,
    STATES,
    normalize_text,
)

THINGS = ("red", "blue", "green", "lamp", "ring", "book", "boat", "drum", "bell", "rope")
WORDS = (*NAMES, *PLACES, *STATES, *OUTCOMES, *THINGS)
NEXT = "{a} {p}"
PLACED = ("{a}, {p}", "{a} : {p}", "the {a} is {p}", "{a} is {p}", "{a} ) {p}", "{a} - {p}")
LINKED = (
    "{a} to {p}",
    "{a} with {p}",
    "{a} or {p}",
    "{a} now and {p}",
    "{a}, then {p}",
    "{a} is a {p}",
)
MAX_WORDS = 175  # words are tokens here; a longer row is sampled again


@dataclass(frozen=True, slots=True)
class InstructionRow:
    """One row of the generic instruction set."""

    instruction: str
    response: str


def _generate_fact_list(rng: random.Random, bare: float = 0.3) -> str:
    """Return 2 to 5 facts, repeated many times. This teaches copying fastest.

    A fraction `bare` of the texts has the value directly after its name. Models learn to copy from
    these first, and then from facts with words in between. They did not learn it from the latter
    alone, even with far more text.
    """
    pool, keys, values = rng.choice(
        (
            (FACTS, NAMES, PLACES),
            (FACTS, NAMES, PLACES),
            (HOLDS, NAMES, range(MAX_EURO + 1)),
            (RULES, STATES, (*STATES, *OUTCOMES)),
            (FACTS, NAMES, THINGS),
            (PLACED, ORDINALS, WORDS),
            (LINKED, WORDS, WORDS),
        )
    )
    size = rng.randint(2, 5)
    pairs = list(zip(rng.sample(keys, size), rng.sample(values, size), strict=True))
    wordings = [NEXT if rng.random() < bare else rng.choice(pool)]
    if bare < 1 and rng.random() < 0.4:
        wordings.append(rng.choice(pool))
    repeated = pairs + rng.choices(pairs, k=rng.randint(12, 20))
    facts = [(rng.choice(wordings), a, v) for a, v in repeated]
    return " . ".join(w.format(a=a, p=v, h=v, x=a, y=v, u="form") for w, a, v in facts) + " ."


def _generate_changes(rng: random.Random) -> str:
    """Return facts that are replaced by newer facts."""
    people, wording = rng.sample(NAMES, 3), rng.choice(FACTS)
    state = dict(zip(people, rng.sample(PLACES, 3), strict=True))
    lines = [wording.format(a=a, p=p) for a, p in state.items()]
    for _ in range(rng.randint(6, 14)):
        name = rng.choice(people)
        if rng.random() < 0.5:
            state[name] = rng.choice(PLACES)
            lines.append(wording.format(a=name, p=state[name]))
        else:
            lines.append(f"now {name} : {state[name]}")
    return " . ".join(lines) + " ."


def _generate_swap(rng: random.Random) -> str:
    """Return one exchange with the facts before and after it."""
    a, b = rng.sample(NAMES, 2)
    p, q = rng.sample((*PLACES, *THINGS), 2)
    fact, link = rng.choice(FACTS), rng.choice((", so ", " . now ", " . then ", ", hence "))
    before = [fact.format(a=a, p=p), fact.format(a=b, p=q)]
    after = [fact.format(a=a, p=q), fact.format(a=b, p=p)]
    if rng.random() < 0.3:
        before.reverse()
    swap = rng.choice(SWAPS).format(a=a, b=b)
    return f"{', '.join(before)} . {swap}{link}{' and '.join(after)} ."


def _generate_rules(rng: random.Random) -> str:
    """Return a chain of rules in random order, then in the order of the chain."""
    chain, wording = rng.sample((*STATES, *OUTCOMES), 5), rng.choice(RULES)
    rules = [wording.format(x=x, y=y, u="form") for x, y in pairwise(chain)]
    follow = list(rules[rng.randrange(3) :])
    rng.shuffle(rules)
    return " . ".join(rules + follow) + " ."


def _generate_sums(rng: random.Random) -> str:
    """Return sums and differences of small numbers."""
    lines = []
    for _ in range(rng.randint(9, 15)):
        n, r = rng.randint(0, 9), rng.randint(0, MAX_EURO)
        if rng.random() < 0.5:
            h = max(0, r - n)
            lines.append(rng.choice(ADDS).format(h=h, n=n, r=h + n))
        else:
            lines.append(rng.choice(TAKES).format(h=r, n=min(n, r), r=r - min(n, r)))
    return " . ".join(lines) + " ."


def _generate_list(rng: random.Random) -> str:
    """Return a numbered list, and its entries again."""
    items = rng.sample(WORDS, rng.randint(2, 5))
    mark = rng.choice(("{o} {w}", "{o} : {w}", "{n} . {w}", "the {o} is {w}"))
    lines = [
        mark.format(o=o, n=i + 1, w=w)
        for i, (o, w) in enumerate(zip(ORDINALS, items, strict=False))
    ]
    return ", ".join(lines) + " . " + " . ".join(rng.choices(lines, k=9)) + " ."


DRILLS = (
    _generate_fact_list,
    _generate_changes,
    _generate_swap,
    _generate_rules,
    _generate_sums,
    _generate_list,
)


def generate_plain_text(rng: random.Random, *, story_fraction: float) -> str:
    """Return one story, or one drill."""
    while True:
        if rng.random() < story_fraction:
            text = _generate_story(rng)
        else:
            text = rng.choice((_generate_fact_list, *DRILLS))(rng)
        if count_words(text) <= MAX_WORDS:
            return text


def _generate_story(rng: random.Random) -> str:
    story = generate_story(rng)
    if rng.random() < 0.5:
        return f"{story.listing} {story.ask}\n{story.narration}"
    return f"{story.listing}\n{story.narration}\n{ANSWER_PREFIX} {story.answer}"


def count_words(text: str) -> int:
    """Return the approximate number of tokens: a word is a token of the world."""
    return len(normalize_text(text).split(" ")) + text.count("\n")


def generate_instruction(rng: random.Random, *, story_fraction: float = 0.0) -> InstructionRow:
    """Return a generic instruction with its response: a story, or a drill of one skill."""
    if rng.random() < story_fraction:
        story = generate_story(rng)
        lines = (f"{story.listing} {story.ask}", f"{story.ask}\n{story.listing}", story.listing)
        instruction = rng.choice(lines[: 3 if story.ask in story.narration else 2])
        if rng.random() < 0.3:
            return InstructionRow(
                f"{instruction}\n{ANSWER_INSTRUCTION}", f"{ANSWER_PREFIX} {story.answer}"
            )
        return InstructionRow(
            f"{instruction}\n{COT_INSTRUCTION}",
            f"{story.narration}\n{ANSWER_PREFIX} {story.answer}",
        )
    return rng.choice(INSTRUCTIONS)(rng)


def _build_instruction(rng: random.Random, text: str, reason: str, answer: str) -> InstructionRow:
    """Return the instruction with a request for the answer alone, or with reasoning first."""
    if rng.random() < 0.4:
        return InstructionRow(f"{text}\n{ANSWER_INSTRUCTION}", f"{ANSWER_PREFIX} {answer}")
    return InstructionRow(f"{text}\n{COT_INSTRUCTION}", f"{reason} .\n{ANSWER_PREFIX} {answer}")


def _ask_to_repeat(rng: random.Random) -> InstructionRow:
    words = " ".join(rng.sample(WORDS, rng.randint(2, 6)))
    return InstructionRow(f"{rng.choice(('Repeat', 'Say', 'Copy'))} : {words}", words)


def _ask_to_look_up(rng: random.Random) -> InstructionRow:
    pairs = dict(zip(rng.sample(NAMES, 4), rng.sample((*PLACES, *THINGS), 4), strict=True))
    wording, name = rng.choice(FACTS), rng.choice(list(pairs))
    text = " . ".join(wording.format(a=a, p=p) for a, p in pairs.items())
    reason = wording.format(a=name, p=pairs[name])
    return _build_instruction(rng, f"{text} . Look up {name} .", reason, str(pairs[name]))


def _ask_for_next_step(rng: random.Random) -> InstructionRow:
    chain = rng.sample((*STATES, *THINGS), 5)
    wording = rng.choice(RULES)
    rules = [wording.format(x=x, y=y, u="form") for x, y in pairwise(chain)]
    i = rng.randrange(4)
    line = rules[i]
    rng.shuffle(rules)
    return _build_instruction(
        rng, f"{' . '.join(rules)} . What is next after {chain[i]} ?", line, chain[i + 1]
    )


def _ask_for_sum(rng: random.Random) -> InstructionRow:
    h, n = rng.randint(0, 9), rng.randint(0, 6)
    if rng.random() < 0.5:
        h, n = max(h, n), min(h, n)
        return _build_instruction(
            rng, f"Take {n} from {h} .", rng.choice(TAKES).format(h=h, n=n, r=h - n), str(h - n)
        )
    n = min(n, MAX_EURO - h)
    return _build_instruction(
        rng, f"Sum {h} and {n} .", rng.choice(ADDS).format(h=h, n=n, r=h + n), str(h + n)
    )


def _ask_to_restate(rng: random.Random) -> InstructionRow:
    old, new = rng.sample(FACTS, 2)
    name, value = rng.choice(NAMES), rng.choice((*PLACES, *THINGS))
    stated, pattern = old.format(a=name, p=value), new.format(a=name, p="...")
    return InstructionRow(f"Restate as {pattern} : {stated}", new.format(a=name, p=value))


INSTRUCTIONS = (_ask_to_repeat, _ask_to_look_up, _ask_for_next_step, _ask_for_sum, _ask_to_restate)


def generate_instructions(n: int, seed: int) -> list[InstructionRow]:
    """Return the generic instruction set: `n` short rows about single skills."""
    rng = random.Random(f"instruct:{seed}")
    return [generate_instruction(rng) for _ in range(n)]


def generate_pairs(n: int, seed: int) -> list[TrainingSequence]:
    """Return the first training set of every model: repeated facts, the value after the name."""
    rng = random.Random(f"pairs:{seed}")
    return [_build_row(i, _generate_fact_list(rng, 1.0)) for i in range(n)]


def generate_facts(n: int, seed: int) -> list[TrainingSequence]:
    """Return the second training set: repeated facts in every wording."""
    rng = random.Random(f"facts:{seed}")
    return [_build_row(i, _generate_fact_list(rng)) for i in range(n)]


def generate_student_corpus(n: int, seed: int) -> list[TrainingSequence]:
    """Return plain text for a plain base model: drills and stories."""
    rng = random.Random(f"student:{seed}")
    return [_build_row(i, generate_plain_text(rng, story_fraction=0.5)) for i in range(n)]


def generate_assistant_corpus(n: int, seed: int) -> list[TrainingSequence]:
    """Return text for an instruct model: drills and stories, plain and in the chat format."""
    rng = random.Random(f"assistant:{seed}")
    rows: list[TrainingSequence] = []
    while len(rows) < n:
        if rng.random() < 0.7:
            rows.append(_build_row(len(rows), generate_plain_text(rng, story_fraction=0.65)))
            continue
        row = generate_instruction(rng, story_fraction=0.8)
        if count_words(f"{row.instruction} {row.response}") < MAX_WORDS:
            prompt = (Message("user", row.instruction),)
            rows.append(TrainingSequence(str(len(rows)), prompt, (TargetSpan(row.response),)))
    return rows


def _build_row(i: int, text: str) -> TrainingSequence:
    return TrainingSequence(str(i), (), (TargetSpan(text),))
