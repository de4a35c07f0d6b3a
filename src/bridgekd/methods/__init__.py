"""One short file per published method: an ordinary function that calls stages in order. Read these
first.
"""

from difflib import get_close_matches

from bridgekd.errors import BadInput
from bridgekd.methods.answers_only import answers_only
from bridgekd.methods.base import base
from bridgekd.methods.bridge import bridge, diverse, hardest, no_instruct, random
from bridgekd.methods.direct import direct, direct_full
from bridgekd.methods.mentor_kd import mentor_kd
from bridgekd.methods.ta_in_the_loop import ta_in_the_loop
from bridgekd.runs import Method

METHODS: dict[str, Method] = {
    "bridge": bridge,
    "random": random,
    "hardest": hardest,
    "diverse": diverse,
    "no_instruct": no_instruct,
    "direct": direct,
    "direct_full": direct_full,
    "answers_only": answers_only,
    "mentor_kd": mentor_kd,
    "ta_in_the_loop": ta_in_the_loop,
    "base": base,
}


def method_named(name: str) -> Method:
    """The method of this name; BadInput with the nearest known one."""
    if name in METHODS:
        return METHODS[name]
    near = get_close_matches(name, METHODS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(METHODS)}"
    raise BadInput(f"unknown method {name!r}; {hint}")
