"""Generate short stories of the world, as text to pretrain the local models.

A story lists facts and events, then narrates them step by step. Each story has random phrases, so a
model learns to follow a wording and not to memorize one. No story contains a question of the world
or a sentence that the step checker accepts as a sentence of the teacher: such a story is rejected.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from bridgekd.sandbox.domains import (
    DOMAINS,
    ORDINALS,
    Event,
    Problem,
    apply_event,
    normalize_text,
    sample_problem,
)
from bridgekd.sandbox.phrases import parse_step

FACTS = (
    *("{a} stays in {p}", "{a} at {p}", "{a} rests in {p}", "{a} sat in {p}", "{a} : {p}"),
    *("{a} was put in {p}", "we see {a} in {p}", "{a} had {p}", "{a} was in {p}", "{a} is in {p}"),
    *("{a} is now in {p}", "{a} held {p}", "{a} has {p}", "the place of {a} is {p}"),
)
MOVES = (
    *("{a} walks to {q}", "{a} leaves for {q}", "send {a} to {q}", "{a} now to {q}"),
    *("{a} is sent to {q}", "{a} moves on to {q}", "{a} goes over to {q}", "{a} takes {q}"),
    *("{a} to {q}", "the event sends {a} to {q}", "put {a} in {q}", "{a} walks over to {q}"),
)
SWAPS = (
    *(
        "{a} and {b} change",
        "{a} takes the place of {b}",
        "swap {a} with {b}",
        "{a} trades with {b}",
    ),
    *("{a} and {b} change rooms", "{a} and {b} swap rooms", "{a} trades rooms with {b}"),
    *("{a} and {b} trade places", "the event swaps {a} and {b}", "{a} and {b} swap"),
    *("{a} changes with {b}", "trade {a} and {b}"),
)
JOINS = (
    *("{a} walks up to {b}", "{a} visits {b}", "{a} is sent to {b}", "put {a} by {b}"),
    *("{a} joins up with {b}", "{a} follows after {b}", "{a} goes to {b}", "{a} walks to {b}"),
    *("{a} leaves for {b}", "send {a} to {b}", "{a} joins in with {b}", "now {a} follows {b}"),
)
ENDS = (
    *("{a} is in {c}", "{a} stays in {c}", "{a} in {c}", "{a} is at {c}", "{a} has {c}"),
    *("{a} is now in {c}", "{a} ends in {c}", "{a} rests in {c}", "{a} gets {c}"),
)
LINKS = (
    *(", so ", ", now ", ", hence ", ", then ", ", thus ", ", this means ", ", which puts "),
    *(", we find ", ", that makes ", " and ", " : ", ", this leaves ", ", so now "),
)
PAUSES = (", ", ", since ", ", and ", " : ", ", before ", ", where ", ", but ", " while ")
LIST_MARKS = (
    *("{o} : ", "{o} ) ", "{n} . ", "{n} ) ", "event {o} : ", "( {o} ) ", "{o} - ", "the {o} : "),
    *("note {o} : ", "{o} event : "),
)
TELL_MARKS = (
    *("{o}, ", "{o} : ", "then {o}, ", "at {o}, ", "the {o} event, ", "{n} . ", "event {o} : "),
    *("the {o} : ", "{o} note, ", "{o} note : ", "{o}, since ", "then {o} ", "then {o} : ", "{o} "),
    *("after this, {o}, ", "note that {o} ", "the {o} event : "),
)
NOUNS = ("claim", "file", "form", "plea", "case")
RULES = (
    *("if {x} then {y}", "{x} : {y}", "{x} leads to {y}", "{x} gives {y}", "{x} makes {y}"),
    *("the rule for {x} is {y}", "a {x} {u} must be {y}", "from {x} to {y}", "{x} becomes {y}"),
    *("what is {x} must be {y}", "a {x} {u} is then {y}", "from {x} we go to {y}", "{x}, then {y}"),
    *("the rule for {x} gives {y}", "{x} must be {y}", "from {x} we get {y}", "{x} is {y}"),
)
STARTS = (
    "the {u} was {x}",
    "start : {x}",
    "we start at {x}",
    "our {u} : {x}",
    "it is {x} at first",
)
STANDS = (
    *("the {u} is {x}", "it is {x}", "{x}", "from {x}", "since it is {x}", "at {x}", "now {x}"),
    *("since {x}", "note that it is {x}", "then from {x}", "we have {x}"),
)
TURNS = (
    *("it is {c}", "the {u} is {c}", "the {u} becomes {c}", "it stays {c}", "the {u} stays {c}"),
    *("it {c}", "the {u} {c}", "we get {c}"),
)
UNITS = ("stones", "cards", "keys", "euro", "coins")
PLUS = (
    *("{a} gets {n}", "{a} adds {n}", "{a} takes {n} more", "give {a} {n}", "{a} wins {n}"),
    *(
        "{n} more for {a}",
        "plus {n} for {a}",
        "{a} gains {n}",
        "bring {a} {n}",
        "{a} earns {n} more",
    ),
    *("the event brings {a} {n}", "{a} finds {n} more", "{a} plus {n}", "{a} takes {n}"),
)
MINUS = (
    *(
        "{a} loses {n} now",
        "{a} drops {n}",
        "{a} gives up {n}",
        "{a} pays {n}",
        "{a} spends {n} now",
    ),
    *(
        "{n} less for {a}",
        "take {n} from {a}",
        "this costs {a} {n}",
        "{a} minus {n}",
        "{a} gives {n}",
    ),
    *("the event costs {a} {n}", "{a} loses {n}", "{a} spends {n}", "{a} is {n} short"),
)
PAYS = (
    *("{a} hands {b} {n}", "{a} pays {n} to {b}", "{n} from {a} to {b}", "{a} gives {n} to {b}"),
    *(
        "{b} gets {n} from {a}",
        "{a} sends {b} {n}",
        "take {n} from {a} for {b}",
        "{b} takes {n} of {a}",
    ),
)
HOLDS = (
    *("{a} holds {h}", "{a} : {h}", "{a} has {h}", "{a} had {h}", "{a} held {h}", "{a} at {h}"),
    *("we see {a} at {h}", "{a} with {h}"),
)
ADDS = (
    *("{h} + {n} = {r}", "{h} plus {n} is {r}", "{h} plus {n} makes {r}", "{h} + {n} gives {r}"),
    *("{h} and {n} is {r}", "{h} and {n} makes {r}", "{h} + {n} is {r}", "{h} plus {n} = {r}"),
)
TAKES = (
    *("{h} - {n} = {r}", "{h} minus {n} is {r}", "{h} less {n} is {r}", "{h} - {n} leaves {r}"),
    *("{h} minus {n} makes {r}", "{h} less {n} leaves {r}", "{h} - {n} is {r}"),
)
ASKS = (
    *("where does {a} end ?", "tell about {a} .", "what of {a} ?", "follow {a} .", "{a} at last ?"),
    *("say where {a} ends .", "what becomes of {a} ?", "{a} ?"),
    *("how many or where, {a} ?", "the outcome for {a} ?"),
)
RECAPS = (
    *(
        "{a} : {c}",
        "last of all {a}, {c}",
        "that was {a}, {c}",
        "we say {a} at {c}",
        "it ends at {c}",
    ),
    *("what is left for {a} is {c}", "{c}, that is {a}", "the last we see of {a} is {c}"),
    *("in the end, {a} : {c}", "finally {c}", "at last {c} for {a}", "after all this, {c}"),
)


@dataclass(frozen=True, slots=True)
class StoryText:
    """A list of facts and events, a question about them, a narration and the answer."""

    listing: str
    ask: str
    narration: str
    answer: str


class _PhraseChooser:
    """Chooses one phrase of every pool for a story; sometimes it uses another one."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.chosen: dict[Sequence[str], str] = {}

    def choose(self, pool: Sequence[str]) -> str:
        """Return a phrase of this pool."""
        if pool not in self.chosen:
            self.chosen[pool] = self.rng.choice(pool)
        return self.rng.choice(pool) if self.rng.random() < 0.08 else self.chosen[pool]


def generate_story(rng: random.Random, max_steps: int = 5) -> StoryText:
    """Return a random story of at most `max_steps` steps, free of the teacher's sentences."""
    while True:
        problem = sample_problem(rng, rng.choice(DOMAINS))
        if _count_steps(problem) > max_steps:
            continue
        for _ in range(20):
            story = _narrate(problem, rng)
            clauses = normalize_text(story.narration).replace(";", ".").split(" .")
            if not any(parse_step(problem.domain, clause.strip()) for clause in clauses):
                return story


def _count_steps(problem: Problem) -> int:
    if problem.domain != "statute":
        return len(problem.events) + sum(event.kind == "pay" for event in problem.events)
    rules, state, size = {e.who: e.what for e in problem.events}, problem.facts[0][1], 0
    while state in rules:
        state, size = rules[state], size + 1
    return size


def _narrate(problem: Problem, rng: random.Random) -> StoryText:
    words = _PhraseChooser(rng)
    if problem.domain == "statute":
        listing, lines, who, answer = _narrate_rules(problem, words)
    else:
        listing, lines, answer = _narrate_events(problem, words)
        who = problem.target
    ask = words.choose(ASKS).format(a=who)
    recap = words.choose(RECAPS).format(a=who, c=answer)
    stop = rng.choice((" . ", " . ", " ; ", "\n"))
    return StoryText(listing, ask, stop.join([*lines, recap]) + " .", answer)


def _narrate_rules(problem: Problem, words: _PhraseChooser) -> tuple[str, list[str], str, str]:
    noun = words.choose(NOUNS)
    stop = words.rng.choice((" . ", ", ", " ; ", "\n"))
    rules = [words.choose(RULES).format(x=e.who, y=e.what, u=noun) for e in problem.events]
    state = problem.facts[0][1]
    start = words.choose(STARTS).format(x=state, u=noun)
    listed = [start, *rules] if words.rng.random() < 0.3 else [*rules, start]
    follows = {e.who: e.what for e in problem.events}
    lines: list[str] = []
    mark = words.rng.choice(("", "", "", *TELL_MARKS[:6]))
    rules_again = RULES if words.rng.random() < 0.7 else (words.choose(RULES),)
    while state in follows:
        i, last = len(lines), follows[state]
        line = mark.format(o=ORDINALS[i], n=i + 1)
        line += words.choose(STANDS).format(x=state, u=noun) + words.choose(PAUSES[:4])
        line += words.choose(rules_again).format(x=state, y=last, u=noun)
        if last in follows and words.rng.random() < 0.2:
            line += words.choose(PAUSES[:3])
            line += words.choose(rules_again).format(x=last, y=follows[last], u=noun)
            last = follows[last]
        lines.append(line + words.choose(LINKS) + words.choose(TURNS).format(c=last, u=noun))
        state = last
    return stop.join(listed) + " .", lines, noun, state


_LISTED = {"move": MOVES, "swap": SWAPS, "join": JOINS, "earn": PLUS, "spend": MINUS, "pay": PAYS}


def _narrate_events(problem: Problem, words: _PhraseChooser) -> tuple[str, list[str], str]:
    clinic = problem.domain == "clinic"
    unit = "" if clinic else f" {words.choose(UNITS)}"
    stop = words.rng.choice((" . ", ", ", " ; ", "\n"))
    pool = FACTS if clinic else HOLDS
    facts = [words.choose(pool).format(a=a, p=p, h=p) + unit for a, p in problem.facts]
    list_mark, tell_mark = words.choose(LIST_MARKS), words.choose(TELL_MARKS)
    listed, lines, state = [], [], dict(problem.facts)
    for i, event in enumerate(problem.events):
        mark = {"o": ORDINALS[i], "n": i + 1}
        slots = {"a": event.who, "b": event.other, "q": event.what, "n": event.what}
        listed.append(list_mark.format(**mark) + words.choose(_LISTED[event.kind]).format(**slots))
        parts = _narrate_move(event, state, words) if clinic else _narrate_sum(event, state, words)
        lines.append(tell_mark.format(**mark) + parts[0])
        lines += [words.choose(("also, ", "also : ", "and ", "also ")) + more for more in parts[1:]]
        apply_event(state, event)
    return stop.join([*facts, *listed]) + " .", lines, state[problem.target]


def _narrate_move(event: Event, state: dict[str, str], words: _PhraseChooser) -> list[str]:
    a, b = event.who, event.other
    pool = {"move": MOVES, "swap": SWAPS, "join": JOINS}[event.kind]
    text = words.choose(pool).format(a=a, b=b, q=event.what)
    end, link, fact = words.choose(ENDS), words.choose(LINKS), words.choose(FACTS[:13])
    pause, also = words.choose(PAUSES), words.choose((" and ", ", ", " while "))
    if event.kind == "move":
        read = f"{pause}{fact.format(a=a, p=state[a])}" if words.rng.random() < 0.2 else ""
        return [text + read + link + end.format(a=a, c=event.what)]
    if event.kind == "join":
        return [text + pause + fact.format(a=b, p=state[b]) + link + end.format(a=a, c=state[b])]
    read = pause + fact.format(a=a, p=state[a]) + also + fact.format(a=b, p=state[b])
    return [text + read + link + end.format(a=a, c=state[b]) + also + end.format(a=b, c=state[a])]


def _narrate_sum(event: Event, state: dict[str, str], words: _PhraseChooser) -> list[str]:
    legs = [(event.who, event.kind == "earn")]
    if event.kind == "pay":
        legs = [(event.who, False), (event.other, True)]
    parts = []
    for name, plus in legs:
        has, n = int(state[name]), int(event.what)
        result = has + n if plus else has - n
        text = words.choose(PLUS if plus else MINUS).format(a=name, n=n)
        text += words.choose(PAUSES) + words.choose(HOLDS).format(a=name, h=has)
        text += words.choose((", ", " : ", ", and ", ", so "))
        text += words.choose(ADDS if plus else TAKES).format(h=has, n=n, r=result)
        parts.append(text + words.choose(LINKS) + words.choose(HOLDS).format(a=name, h=result))
    return parts
