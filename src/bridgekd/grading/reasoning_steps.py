"""The sentences and steps of a rationale without a checker, and questions grouped by them."""

import re
from collections import Counter
from collections.abc import Mapping

_BREAK = re.compile(r"\n|(?<=[.!?])\s+|(?<=[。！？])")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\s*\n\s*")
_SAYS_SOMETHING = re.compile(r"\w\W+\w|\w{4}|[^\x00-\x7f]{2}")


def count_steps(rationale: str) -> int:
    """Return the number of lines and sentences; an item number (`1.`, `(a)`) does not count.

    >>> count_steps("1. Add them.\\n2. Halve the sum.")
    2
    """
    return sum(bool(_SAYS_SOMETHING.search(part)) for part in _BREAK.split(rationale))


def find_sentence_ends(text: str) -> list[int]:
    """Return the position after the last character of each sentence; a line is a sentence.

    >>> find_sentence_ends("Ann has 3.5 l. Ben has 2 l.\\nSo 5.5 l")
    [14, 27, 36]
    """
    text = text.rstrip()
    return [m.start() for m in SENTENCE_END.finditer(text) if m.start()] + [len(text)]


def group_counts(counts: Mapping[str, int], n_groups: int = 6) -> dict[str, str]:
    """Return the group of every id, "3" or "4 to 6".

    Every count is a group if there are at most `n_groups` counts. Otherwise groups have about the
    same number of ids.
    >>> group_counts({"a": 2, "b": 3, "c": 2})
    {'a': '2', 'b': '3', 'c': '2'}
    """
    sizes = Counter(counts.values())
    min_size = len(counts) / n_groups if len(sizes) > n_groups else 0
    names: dict[int, str] = {}
    group: list[int] = []
    for n in sorted(sizes):
        group.append(n)
        name = f"{group[0]}" if len(group) == 1 else f"{group[0]} to {n}"
        names |= dict.fromkeys(group, name)
        if sum(sizes[k] for k in group) >= min_size:
            group = []
    return {id: names[n] for id, n in counts.items()}
