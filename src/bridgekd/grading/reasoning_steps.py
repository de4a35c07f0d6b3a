"""Counts the steps of a rationale without a checker, and groups questions by such counts."""

import re
from collections import Counter
from collections.abc import Mapping

_BREAK = re.compile(r"\n|(?<=[.!?])\s+|(?<=[。！？])")
_SAYS_SOMETHING = re.compile(r"\w\W+\w|\w{4}|[^\x00-\x7f]{2}")


def count_steps(rationale: str) -> int:
    """Return the number of lines and sentences; the number of an item (`1.`, `(a)`) is none.

    >>> count_steps("1. Add them.\\n2. Halve the sum.")
    2
    """
    return sum(bool(_SAYS_SOMETHING.search(part)) for part in _BREAK.split(rationale))


def group_counts(counts: Mapping[str, int], n_groups: int = 6) -> dict[str, str]:
    """Return the group of every id, "3" or "4 to 6": one group for each count if there are at most
    `n_groups` counts, otherwise groups of about equal size.

    >>> group_counts({"a": 2, "b": 3, "c": 2})
    {'a': '2', 'b': '3', 'c': '2'}
    """
    of = Counter(counts.values())
    least = len(counts) / n_groups if len(of) > n_groups else 0
    groups: list[list[int]] = [[]]
    size = 0
    for n in sorted(of):
        groups[-1].append(n)
        size += of[n]
        if size >= least:
            groups.append([])
            size = 0
    name = {
        n: f"{group[0]}" if len(group) == 1 else f"{group[0]} to {group[-1]}"
        for group in groups
        for n in group
    }
    return {id: name[n] for id, n in counts.items()}
