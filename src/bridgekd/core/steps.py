"""How long the way to an answer is: the steps of a rationale where no checker counts them, and
questions in groups by it.
"""

import re
from collections import Counter
from collections.abc import Mapping

_BREAK = re.compile(r"\n|(?<=[.!?])\s+|(?<=[。！？])")
_SAYS_SOMETHING = re.compile(r"\w\W+\w|\w{4}|[^\x00-\x7f]{2}")


def n_steps(rationale: str) -> int:
    """Lines and sentences of a rationale; an item's bare number (`1.`, `(a)`) is none."""
    return sum(bool(_SAYS_SOMETHING.search(part)) for part in _BREAK.split(rationale))


def grouped(counts: Mapping[str, int], n_groups: int = 6) -> dict[str, str]:
    """Ids to groups of like counts, "3" or "4 to 6": a group for each count where there are few,
    else about equally many ids in each.
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
