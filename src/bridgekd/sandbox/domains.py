"""The three domains of the world: their questions, as data and as English text.

A `Problem` is a question as data. `render_problem` writes it in English and `parse_problem` reads
it back, so solver, teacher and step checker work from the text alone. In `clinic`, people change
places. In `statute`, rules form chains. In `accounts`, people get and spend money. A state maps a
name (or "case") to a word.
"""

import itertools
import random
import re
from dataclasses import dataclass

NAMES = ("ann", "bob", "cora", "dan", "eva", "finn", "gus", "hana", "ivan", "jill", "kurt", "lena")
PLACES = (
    *("surgery", "triage", "recovery", "radiology", "cardiology", "neurology"),
    *("oncology", "pharmacy", "maternity", "reception", "isolation", "therapy"),
)
STATES = (
    *("filed", "heard", "sealed", "stayed", "noted", "signed", "proved", "served"),
    *("weighed", "listed", "tested", "posted", "quoted", "copied", "marked", "sorted"),
)
OUTCOMES = ("closed", "granted", "denied", "dropped", "settled", "voided", "upheld", "barred")
ORDINALS = ("first", "second", "third", "fourth", "fifth")
DOMAINS = ("clinic", "statute", "accounts")
DOMAIN_WEIGHTS = (0.5, 0.3, 0.2)
MAX_EURO = 12

_LENGTHS = {
    "clinic": (0.25, 0.30, 0.25, 0.20),
    "statute": (0.15, 0.25, 0.25, 0.20, 0.15),
    "accounts": (0.25, 0.30, 0.25, 0.20),
}
_EVENT_WORDINGS = {
    "move": ("{a} moves to {n}", "{a} goes to {n}"),
    "swap": ("{a} and {b} swap places", "{a} trades places with {b}"),
    "join": ("{a} joins {b}", "{a} follows {b}"),
    "earn": ("{a} earns {n} euro", "{a} finds {n} euro"),
    "spend": ("{a} spends {n} euro", "{a} loses {n} euro"),
    "pay": ("{a} pays {b} {n} euro", "{a} gives {b} {n} euro"),
    "rule": ("a {a} case is {n}",),
}
_CLINIC_KINDS = ("move", "swap", "join")
_ACCOUNT_KINDS = ("earn", "spend", "pay")


@dataclass(frozen=True, slots=True)
class Event:
    """One event, or one rule: `who` is its condition, `what` its consequence."""

    kind: str
    who: str
    other: str = ""
    what: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """A question as data. `facts` is the initial state, in the order of the text."""

    domain: str
    facts: tuple[tuple[str, str], ...]
    events: tuple[Event, ...]
    target: str


def normalize_text(text: str) -> str:
    """Return the text in lower case, with one space between words, numbers and marks."""
    return " ".join(re.findall(r"[a-z]+|[0-9]+|[^\sa-z0-9]", text.lower()))


def format_sentence(text: str) -> str:
    """Return the clause as a sentence: with a capital letter, capitalized names and a period."""
    words = [word.capitalize() if word.strip(",;:") in NAMES else word for word in text.split(" ")]
    joined = " ".join(words)
    return f"{joined[0].upper()}{joined[1:]}."


def sample_problem(rng: random.Random, domain: str) -> Problem:
    """Return a random problem of the domain."""
    weights = _LENGTHS[domain]
    length = rng.choices(range(1, len(weights) + 1), weights)[0]
    return _SAMPLERS[domain](rng, length)


def _sample_clinic(rng: random.Random, n_events: int) -> Problem:
    people = rng.sample(NAMES, rng.choice((3, 3, 4)))
    places = rng.sample(PLACES, len(people))
    state = dict(zip(people, places, strict=True))
    events: list[Event] = []
    while len(events) < n_events:
        a, b = rng.sample(people, 2)
        kind = rng.choices(_CLINIC_KINDS, (0.35, 0.45, 0.2))[0]
        if kind != "move" and state[a] == state[b]:
            continue
        place = rng.choice([p for p in PLACES if p != state[a]])
        event = Event("move", a, what=place) if kind == "move" else Event(kind, a, b)
        apply_event(state, event)
        events.append(event)
    targets = [n for e in events for n in ((e.who, e.other) if e.kind == "swap" else (e.who,))]
    facts = tuple(zip(people, places, strict=True))
    return Problem("clinic", facts, tuple(events), rng.choice(targets))


def _sample_statute(rng: random.Random, n_hops: int) -> Problem:
    states, outcomes = rng.sample(STATES, len(STATES)), rng.sample(OUTCOMES, 3)
    chain = [states.pop() for _ in range(n_hops)] + [outcomes.pop()]
    start, rules = chain[0], list(itertools.pairwise(chain))
    for length in ((1, 2), (2, 2), (2, 1), (1, 1), (1, 1))[n_hops - 1]:
        other_chain = [states.pop() for _ in range(length)] + [outcomes.pop()]
        rules += itertools.pairwise(other_chain)
    rng.shuffle(rules)
    events = tuple(Event("rule", cause, what=effect) for cause, effect in rules)
    return Problem("statute", (("case", start),), events, "case")


def _sample_accounts(rng: random.Random, n_events: int) -> Problem:
    people = rng.sample(NAMES, rng.choice((2, 3)))
    euro = [str(rng.randint(1, 9)) for _ in people]
    state = dict(zip(people, euro, strict=True))
    events: list[Event] = []
    while len(events) < n_events:
        a, b = rng.sample(people, 2)
        paid = any(
            event.kind == "pay" for event in events
        )  # a payment is two steps, so there is at most one
        kind = rng.choices(_ACCOUNT_KINDS, (0.4, 0.4, 0.0 if paid else 0.3))[0]
        n = rng.randint(1, 6)
        event = Event(kind, a, b if kind == "pay" else "", str(n))
        after = dict(state)
        apply_event(after, event)
        if all(0 <= int(value) <= MAX_EURO for value in after.values()):
            state = after
            events.append(event)
    target = rng.choice([name for e in events for name in (e.who, e.other) if name])
    return Problem("accounts", tuple(zip(people, euro, strict=True)), tuple(events), target)


_SAMPLERS = {"clinic": _sample_clinic, "statute": _sample_statute, "accounts": _sample_accounts}


def apply_event(state: dict[str, str], event: Event) -> None:
    """Apply the event to `state`. Tests compare every solution with this simulation."""
    a, b = event.who, event.other
    match event.kind:
        case "move":
            state[a] = event.what
        case "swap":
            state[a], state[b] = state[b], state[a]
        case "join":
            state[a] = state[b]
        case "earn":
            state[a] = str(int(state[a]) + int(event.what))
        case "spend" | "pay":
            state[a] = str(int(state[a]) - int(event.what))
    if event.kind == "pay":
        state[b] = str(int(state[b]) + int(event.what))


def render_problem(problem: Problem, rng: random.Random) -> str:
    """Return the question in English, with one of the wordings of each event."""
    clauses = []
    for event in problem.events:
        wording = rng.choice(_EVENT_WORDINGS[event.kind])
        clauses.append(wording.format(a=event.who, b=event.other, n=event.what))
    numbered = [f"{o}, {clause}" for o, clause in zip(ORDINALS, clauses, strict=False)]
    who = problem.target.capitalize()
    match problem.domain:
        case "statute":
            lines = [*clauses, f"the case is {problem.facts[0][1]}"]
            question = "What is the outcome?"
        case "clinic":
            lines = [*(f"{name} is in {place}" for name, place in problem.facts), *numbered]
            question = f"Where is {who} in the end?"
        case _:
            lines = [*(f"{name} has {n} euro" for name, n in problem.facts), *numbered]
            question = f"How many euro does {who} have in the end?"
    return " ".join([*map(format_sentence, lines), question])


def _build_pattern(wording: str) -> str:
    return wording.format(a="(?P<a>[a-z]+)", b="(?P<b>[a-z]+)", n="(?P<n>[a-z]+|[0-9]+)")


_EVENTS = {k: [re.compile(_build_pattern(w)) for w in ws] for k, ws in _EVENT_WORDINGS.items()}
_CLAUSE = r"(?:(?:first|second|third|fourth|fifth) , [a-z0-9 ]+ \. )+"
_QUESTIONS = {
    "clinic": re.compile(
        rf"((?:[a-z]+ is in [a-z]+ \. )+)({_CLAUSE})where is ([a-z]+) in the end \?"
    ),
    "accounts": re.compile(
        rf"((?:[a-z]+ has [0-9]+ euro \. )+)({_CLAUSE})"
        r"how many euro does ([a-z]+) have in the end \?"
    ),
    "statute": re.compile(
        r"((?:a [a-z]+ case is [a-z]+ \. )+)the (case) is ([a-z]+) \. what is the outcome \?"
    ),
}


def parse_problem(text: str) -> Problem:
    """Return the last question of the world in `text`. Raises ValueError if there is none."""
    plain = normalize_text(text)
    matches = [(m.end(), d, m) for d, p in _QUESTIONS.items() for m in p.finditer(plain)]
    if not matches:
        raise ValueError(f"There is no question of the sandbox world in {text[:80]!r}.")
    _, domain, match = max(matches, key=lambda item: item[0])
    if domain == "statute":
        events = [_parse_event(clause) for clause in _split_clauses(match[1])]
        return Problem(domain, (("case", match[3]),), tuple(events), "case")
    i_value = 3 if domain == "clinic" else 2
    clauses = [clause.split(" ") for clause in _split_clauses(match[1])]
    facts = tuple((words[0], words[i_value]) for words in clauses)
    numbered = [clause.split(" , ", 1) for clause in _split_clauses(match[2])]
    if [ordinal for ordinal, _ in numbered] != list(ORDINALS[: len(numbered)]):
        raise ValueError(f"The events of the question are not in order: {match[2]!r}.")
    events = [_parse_event(clause) for _, clause in numbered]
    known = {name for name, _ in facts}
    named = {n for e in events for n in (e.who, e.other) if n} | {match[3]}
    if named - known:
        raise ValueError(f"The question has no facts about {sorted(named - known)}.")
    return Problem(domain, facts, tuple(events), match[3])


def _split_clauses(text: str) -> list[str]:
    return [clause for clause in text.strip().removesuffix(" .").split(" . ") if clause]


def _parse_event(clause: str) -> Event:
    for kind, patterns in _EVENTS.items():
        for pattern in patterns:
            if match := pattern.fullmatch(clause):
                slots = match.groupdict()
                return Event(kind, slots["a"], slots.get("b", ""), slots.get("n", ""))
    raise ValueError(f"The question has an unknown event: {clause!r}.")
