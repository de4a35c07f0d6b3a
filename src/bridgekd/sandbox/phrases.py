"""The phrases of the teacher: six styles for each kind of step, and a parser for all of them.

A template works in both directions: `render_step` fills it, and `parse_step` matches it after
`normalize_text`, so spaces and case do not matter. Every template has the facts before the
conclusion. Slots: o ordinal; a, b names; p, q places before the step; c, d conclusions; n amount;
h amount before the step; r result; x, y, z states of the case. A slot has one value.
"""

import re

from bridgekd.sandbox.domains import normalize_text

N_STYLES = 6

STEP_PHRASES: dict[str, tuple[str, ...]] = {
    "move": (
        "{o}, {a} moves to {q}, so {a} is in {c}",
        "{o}: {a} goes to {q}, now {a} is in {c}",
        "the {o} event sends {a} to {q}, which puts {a} in {c}",
        "{o}, since {a} moves to {q}, we find {a} in {c}",
        "then {o} {a} walks to {q}, hence {a} is in {c}",
        "{o} note, {a} leaves for {q}, this means {a} stays in {c}",
    ),
    "swap": (
        "{o}, {a} and {b} swap, {a} is in {p} and {b} is in {q}, "
        "so {a} is in {c} and {b} is in {d}",
        "{o}: {a} trades with {b}, {a} was in {p}, {b} was in {q}, "
        "now {a} is in {c}, {b} is in {d}",
        "the {o} event swaps {a} and {b}, {a} leaves {p} and {b} leaves {q}, "
        "which puts {a} in {c} and {b} in {d}",
        "{o}, since {a} and {b} trade places, {a} from {p} and {b} from {q}, "
        "we find {a} in {c} and {b} in {d}",
        "then {o} {a} and {b} change places, before {a} is in {p} and {b} is in {q}, "
        "hence {a} is in {c} and {b} is in {d}",
        "{o} note, {a} takes the place of {b}, {a} had {p}, {b} had {q}, "
        "this means {a} stays in {c} and {b} stays in {d}",
    ),
    "join": (
        "{o}, {a} joins {b}, {b} is in {q}, so {a} is in {c}",
        "{o}: {a} follows {b}, {b} was in {q}, now {a} is in {c}",
        "the {o} event sends {a} to {b}, {b} rests in {q}, which puts {a} in {c}",
        "{o}, since {a} goes to {b}, and {b} is in {q}, we find {a} in {c}",
        "then {o} {a} walks to {b}, before {b} is in {q}, hence {a} is in {c}",
        "{o} note, {a} leaves for {b}, {b} had {q}, this means {a} stays in {c}",
    ),
    "rule": (
        "the case is {x}, a {x} case is {y}, so the case is {c}",
        "{x}: a {x} case is {y}, now it is {c}",
        "the rule for {x} gives {y}, which makes the case {c}",
        "since it is {x}, and {x} must be {y}, we find it {c}",
        "then from {x} we get {y}, hence it is {c}",
        "note that {x} leads to {y}, this means the case stays {c}",
    ),
    "rule_twice": (
        "the case is {x}, a {x} case is {y}, a {y} case is {z}, so the case is {c}",
        "{x}: a {x} case is {y}, a {y} case is {z}, now it is {c}",
        "the rule for {x} gives {y}, the rule for {y} gives {z}, which makes the case {c}",
        "since it is {x}, and {x} must be {y}, and {y} must be {z}, we find it {c}",
        "then from {x} we get {y}, from {y} we get {z}, hence it is {c}",
        "note that {x} leads to {y}, {y} leads to {z}, this means the case stays {c}",
    ),
    "plus": (
        "{o}, {a} gets {n}, {a} has {h}, {h} + {n} = {r}, so {a} has {c}",
        "{o}: {a} adds {n}, {a} had {h}, {h} plus {n} is {r}, now {a} has {c}",
        "the {o} event brings {a} {n}, {a} holds {h}, {h} + {n} gives {r}, which puts {a} at {c}",
        "{o}, since {a} gains {n}, and {a} has {h}, {h} and {n} is {r}, we find {a} has {c}",
        "then {o} {a} takes {n}, before {a} has {h}, {h} plus {n} makes {r}, hence {a} has {c}",
        "{o} note, {a} wins {n}, {a} held {h}, {h} + {n} = {r}, this means {a} holds {c}",
    ),
    "minus": (
        "{o}, {a} loses {n}, {a} has {h}, {h} - {n} = {r}, so {a} has {c}",
        "{o}: {a} drops {n}, {a} had {h}, {h} minus {n} is {r}, now {a} has {c}",
        "the {o} event costs {a} {n}, {a} holds {h}, {h} - {n} leaves {r}, which puts {a} at {c}",
        "{o}, since {a} gives {n}, and {a} has {h}, {h} less {n} is {r}, we find {a} has {c}",
        "then {o} {a} spends {n}, before {a} has {h}, {h} minus {n} makes {r}, hence {a} has {c}",
        "{o} note, {a} pays {n}, {a} held {h}, {h} - {n} = {r}, this means {a} holds {c}",
    ),
    "end_clinic": (
        "in the end {a} is in {c}",
        "so at last {a} is in {c}",
        "this leaves {a} in {c}",
        "finally we find {a} in {c}",
        "after all this {a} is in {c}",
        "the place where {a} stays is {c}",
    ),
    "end_statute": (
        "in the end the case is {c}",
        "so at last it is {c}",
        "this leaves the case {c}",
        "finally we find it {c}",
        "after all this it is {c}",
        "the outcome of the case is {c}",
    ),
    "end_accounts": (
        "in the end {a} has {c} euro",
        "so at last {a} has {c} euro",
        "this leaves {a} at {c} euro",
        "finally we find {a} has {c} euro",
        "after all this {a} has {c} euro",
        "the sum that {a} holds is {c} euro",
    ),
}
KINDS = {
    "clinic": ("move", "swap", "join", "end_clinic"),
    "statute": ("rule", "rule_twice", "end_statute"),
    "accounts": ("plus", "minus", "end_accounts"),
}

Slots = dict[str, str]


def render_step(kind: str, style: int, slots: Slots) -> str:
    """Return the step as a clause, without a period."""
    return STEP_PHRASES[kind][style].format(**slots)


def _compile(template: str) -> re.Pattern[str]:
    parts: list[str] = []
    seen: dict[str, int] = {}
    for piece in re.split(r"(\{\w\})", template):
        if re.fullmatch(r"\{\w\}", piece):
            slot = piece[1]
            seen[slot] = seen.get(slot, 0) + 1
            parts.append(rf"(?P<{slot}{seen[slot]}>[a-z]+|[0-9]+)")
        elif piece.strip():
            parts.append(re.escape(normalize_text(piece)))
    return re.compile(r"\ ".join(parts))


_STEP_PATTERNS = {
    kind: [_compile(t) for t in templates] for kind, templates in STEP_PHRASES.items()
}


def parse_step(domain: str, clause: str) -> tuple[str, Slots, bool] | None:
    """Return (kind, slots, whether repeated slots agree) of a normalized clause, or None."""
    for kind in KINDS[domain]:
        for pattern in _STEP_PATTERNS[kind]:
            if match := pattern.fullmatch(clause):
                groups = match.groupdict()
                slots = {name[0]: value for name, value in groups.items() if name[1:] == "1"}
                agree = all(slots[name[0]] == value for name, value in groups.items())
                return kind, slots, agree
    return None
