"""Generic text of the world: drills of single skills, tales, and instructions in the chat format.

The bases of the local models are trained on this and on nothing else. It holds no question of the
world in the form the tasks ask it and no sentence of the teacher's: tales.py draws such a tale
again.
"""

import random
from dataclasses import dataclass
from itertools import pairwise

from bridgekd.core.prompts import ANSWER_MARK, ANSWER_REQUEST, EXPLAIN_REQUEST
from bridgekd.records import Message, Span, TrainRow
from bridgekd.sandbox.domains import MAX_EURO, NAMES, ORDINALS, OUTCOMES, PLACES, STATES, normalise
from bridgekd.sandbox.tales import ADDS, FACTS, HOLDS, RULES, SWAPS, TAKES, tale

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
LONGEST = 175  # tokens; a longer row is drawn again


@dataclass(frozen=True, slots=True)
class InstructionRow:
    """One row of the generic instruction set."""

    instruction: str
    response: str


def _facts(rng: random.Random, bare: float = 0.3) -> str:
    """The same few facts again and again: what teaches copying fastest.

    A share `bare` of them puts the value right after its name. So copying is learnt at once, and
    facts with words in between then follow; alone, these had not been learnt after far more text.
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
    said = pairs + rng.choices(pairs, k=rng.randint(12, 20))
    facts = [(rng.choice(wordings), a, v) for a, v in said]
    return " . ".join(w.format(a=a, p=v, h=v, x=a, y=v, u="form") for w, a, v in facts) + " ."


def _changes(rng: random.Random) -> str:
    """Facts that are replaced by newer ones, and what holds now."""
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


def _swaps(rng: random.Random) -> str:
    """One exchange, told in full."""
    a, b = rng.sample(NAMES, 2)
    p, q = rng.sample((*PLACES, *THINGS), 2)
    fact, link = rng.choice(FACTS), rng.choice((", so ", " . now ", " . then ", ", hence "))
    before = [fact.format(a=a, p=p), fact.format(a=b, p=q)]
    after = [fact.format(a=a, p=q), fact.format(a=b, p=p)]
    if rng.random() < 0.3:
        before.reverse()
    swap = rng.choice(SWAPS).format(a=a, b=b)
    return f"{', '.join(before)} . {swap}{link}{' and '.join(after)} ."


def _rules(rng: random.Random) -> str:
    """A chain of rules in random order, then followed."""
    chain, wording = rng.sample((*STATES, *OUTCOMES), 5), rng.choice(RULES)
    rules = [wording.format(x=x, y=y, u="form") for x, y in pairwise(chain)]
    follow = list(rules[rng.randrange(3) :])
    rng.shuffle(rules)
    return " . ".join(rules + follow) + " ."


def _sums(rng: random.Random) -> str:
    """Sums and differences of small numbers."""
    lines = []
    for _ in range(rng.randint(9, 15)):
        n, r = rng.randint(0, 9), rng.randint(0, MAX_EURO)
        if rng.random() < 0.5:
            h = max(0, r - n)
            lines.append(rng.choice(ADDS).format(h=h, n=n, r=h + n))
        else:
            lines.append(rng.choice(TAKES).format(h=r, n=min(n, r), r=r - min(n, r)))
    return " . ".join(lines) + " ."


def _places(rng: random.Random) -> str:
    """A numbered list and what stands where in it."""
    items = rng.sample(WORDS, rng.randint(2, 5))
    mark = rng.choice(("{o} {w}", "{o} : {w}", "{n} . {w}", "the {o} is {w}"))
    lines = [
        mark.format(o=o, n=i + 1, w=w)
        for i, (o, w) in enumerate(zip(ORDINALS, items, strict=False))
    ]
    return ", ".join(lines) + " . " + " . ".join(rng.choices(lines, k=9)) + " ."


DRILLS = (_facts, _changes, _swaps, _rules, _sums, _places)


def plain_text(rng: random.Random, *, tales: float) -> str:
    """One tale, or one drill."""
    while True:
        text = _told(rng) if rng.random() < tales else rng.choice((_facts, *DRILLS))(rng)
        if n_words(text) <= LONGEST:
            return text


def _told(rng: random.Random) -> str:
    told = tale(rng)
    if rng.random() < 0.5:
        return f"{told.listing} {told.ask}\n{told.telling}"
    return f"{told.listing}\n{told.telling}\n{ANSWER_MARK} {told.answer}"


def n_words(text: str) -> int:
    """Tokens of the text, near enough."""
    return len(normalise(text).split(" ")) + text.count("\n")


def instruction_row(rng: random.Random, *, tales: float = 0.0) -> InstructionRow:
    """A generic instruction and its response; a share `tales` of them tells a tale."""
    if rng.random() < tales:
        told = tale(rng)
        lines = (f"{told.listing} {told.ask}", f"{told.ask}\n{told.listing}", told.listing)
        asked = rng.choice(lines[: 3 if told.ask in told.telling else 2])
        if rng.random() < 0.3:
            return InstructionRow(f"{asked}\n{ANSWER_REQUEST}", f"{ANSWER_MARK} {told.answer}")
        return InstructionRow(
            f"{asked}\n{EXPLAIN_REQUEST}", f"{told.telling}\n{ANSWER_MARK} {told.answer}"
        )
    return rng.choice((_repeat, _look_up, _next_step, _sum, _restate))(rng)


def _asked(rng: random.Random, text: str, reason: str, answer: str) -> InstructionRow:
    """The request for the answer alone, or for the reason first."""
    if rng.random() < 0.4:
        return InstructionRow(f"{text}\n{ANSWER_REQUEST}", f"{ANSWER_MARK} {answer}")
    return InstructionRow(f"{text}\n{EXPLAIN_REQUEST}", f"{reason} .\n{ANSWER_MARK} {answer}")


def _repeat(rng: random.Random) -> InstructionRow:
    words = " ".join(rng.sample(WORDS, rng.randint(2, 6)))
    return InstructionRow(f"{rng.choice(('Repeat', 'Say', 'Copy'))} : {words}", words)


def _look_up(rng: random.Random) -> InstructionRow:
    pairs = dict(zip(rng.sample(NAMES, 4), rng.sample((*PLACES, *THINGS), 4), strict=True))
    wording, name = rng.choice(FACTS), rng.choice(list(pairs))
    text = " . ".join(wording.format(a=a, p=p) for a, p in pairs.items())
    reason = wording.format(a=name, p=pairs[name])
    return _asked(rng, f"{text} . Look up {name} .", reason, str(pairs[name]))


def _next_step(rng: random.Random) -> InstructionRow:
    chain = rng.sample((*STATES, *THINGS), 5)
    wording = rng.choice(RULES)
    rules = [wording.format(x=x, y=y, u="form") for x, y in pairwise(chain)]
    i = rng.randrange(4)
    line = rules[i]
    rng.shuffle(rules)
    return _asked(rng, f"{' . '.join(rules)} . What is next after {chain[i]} ?", line, chain[i + 1])


def _sum(rng: random.Random) -> InstructionRow:
    h, n = rng.randint(0, 9), rng.randint(0, 6)
    if rng.random() < 0.5:
        h, n = max(h, n), min(h, n)
        return _asked(
            rng, f"Take {n} from {h} .", rng.choice(TAKES).format(h=h, n=n, r=h - n), str(h - n)
        )
    n = min(n, MAX_EURO - h)
    return _asked(rng, f"Sum {h} and {n} .", rng.choice(ADDS).format(h=h, n=n, r=h + n), str(h + n))


def _restate(rng: random.Random) -> InstructionRow:
    old, new = rng.sample(FACTS, 2)
    name, value = rng.choice(NAMES), rng.choice((*PLACES, *THINGS))
    said, wanted = old.format(a=name, p=value), new.format(a=name, p="...")
    return InstructionRow(f"Restate as {wanted} : {said}", new.format(a=name, p=value))


def instruction_rows(n: int, seed: int) -> list[InstructionRow]:
    """The generic instruction set: `n` short rows about single skills, in a fixed order."""
    rng = random.Random(f"instruct:{seed}")
    return [instruction_row(rng) for _ in range(n)]


def pair_rows(n: int, seed: int) -> list[TrainRow]:
    """The first lesson of every model: bare facts, whole rows of the same few."""
    rng = random.Random(f"pairs:{seed}")
    return [_plain_row(i, _facts(rng, 1.0)) for i in range(n)]


def fact_rows(n: int, seed: int) -> list[TrainRow]:
    """The second lesson: the same in every wording."""
    rng = random.Random(f"facts:{seed}")
    return [_plain_row(i, _facts(rng)) for i in range(n)]


def student_rows(n: int, seed: int) -> list[TrainRow]:
    """Plain text for a plain base model: drills and tales."""
    rng = random.Random(f"student:{seed}")
    return [_plain_row(i, plain_text(rng, tales=0.5)) for i in range(n)]


def assistant_rows(n: int, seed: int) -> list[TrainRow]:
    """Text for an instruct model: drills and tales, plain and in the chat format."""
    rng = random.Random(f"assistant:{seed}")
    rows: list[TrainRow] = []
    while len(rows) < n:
        if rng.random() < 0.7:
            rows.append(_plain_row(len(rows), plain_text(rng, tales=0.65)))
            continue
        row = instruction_row(rng, tales=0.8)
        if n_words(f"{row.instruction} {row.response}") < LONGEST:
            prompt = (Message("user", row.instruction),)
            rows.append(TrainRow(str(len(rows)), prompt, (Span(row.response),)))
    return rows


def _plain_row(i: int, text: str) -> TrainRow:
    return TrainRow(str(i), (), (Span(text),))
