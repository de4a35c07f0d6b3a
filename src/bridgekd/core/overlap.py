"""How much of a test question stands word for word in what was trained on.

The one idea: words become random 64-bit numbers, a run of words one number by a polynomial over
them, and only the runs of the questions are kept; the texts go by in pieces. So memory goes with
the questions and one piece, time with the words. Two different runs share a number with a chance of
about one in 10^19; nothing else is left to chance.

The rule is GPT-3's (arXiv 2005.14165, appendix C): case and punctuation do not count, and a run is
13 words, or the whole question where that has 8 to 12. Shorter questions would be found by chance;
they count only where a whole text has the same words.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

RUN, FEWEST = 13, 8  # words of a run; of the shortest question that runs are looked for in
MOSTLY = 0.8  # from this share of its words on a question is all but known (arXiv 2307.09288, A.6)
_WORD = re.compile(r"\w+")
_BASE = 0x9E3779B97F4A7C15
_AT_ONCE = 2000  # texts

Numbers = NDArray[np.uint64]
Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Overlap:
    """`share` of a question's words that lie in runs found elsewhere, in [0, 1]. `text` is the
    place of a text that holds some of them: of each run's first one, that of the most runs; None
    for share 0.
    """

    share: float = 0.0
    text: int | None = None


@dataclass(slots=True)
class _Runs:
    """The runs of one length: of which question, from which word on, and where each was found."""

    n: int
    owner: Places
    start: Places  # in all words of these questions, one after another
    words_of: Places  # the question of every word there
    known: Numbers  # each run once, ascending
    at: Places  # the place in `known` of every run
    found: Places  # by place in `known`: the first text; -1 for none


def words(text: str) -> list[str]:
    """Words without case and punctuation."""
    return _WORD.findall(text.casefold())


def overlaps(questions: Sequence[str], texts: Iterable[str]) -> list[Overlap]:
    """For every question, in order, how much of it stands in `texts`."""
    asked = [words(q) for q in questions]
    numbers = _numbered(asked)
    by_length: dict[int, list[int]] = {}
    whole: dict[str, int] = {}
    for i, said in enumerate(asked):
        if len(said) >= FEWEST:
            by_length.setdefault(min(RUN, len(said)), []).append(i)
        else:
            whole[" ".join(said)] = -1
    runs = {n: _runs(n, which, asked, numbers) for n, which in by_length.items()}
    for first, piece in _pieces(texts):
        _find(piece, first, runs, numbers)
        for place, said in enumerate(piece, start=first):
            if len(said) < FEWEST and whole.get(key := " ".join(said)) == -1:
                whole[key] = place
    found = [Overlap()] * len(asked)
    for i, said in enumerate(asked):
        if said and whole.get(" ".join(said), -1) >= 0:
            found[i] = Overlap(1.0, whole[" ".join(said)])
    for each in runs.values():
        for i, overlap in _told(each):
            found[i] = overlap
    return found


def _numbered(asked: Sequence[Sequence[str]]) -> dict[str, int]:
    """A random odd number for every word of the questions; 0 is for all others."""
    known = dict.fromkeys(word for said in asked for word in said)
    drawn = np.random.default_rng(0).integers(2**63, size=len(known), dtype=np.uint64)
    return dict(zip(known, (2 * drawn + 1).tolist(), strict=True))


def _runs(
    n: int, which: Sequence[int], asked: Sequence[Sequence[str]], numbers: Mapping[str, int]
) -> _Runs:
    flat, owner = _flat([asked[i] for i in which], numbers)
    ((_, values, whole),) = _windows(flat, {n})
    start = np.flatnonzero(whole)
    known, at = np.unique(values[start], return_inverse=True)
    of = np.array(which, dtype=np.int64)[owner]
    return _Runs(n, of[start], start, of, known, at, np.full(len(known), -1, dtype=np.int64))


def _find(
    piece: Sequence[Sequence[str]],
    first: int,
    runs: Mapping[int, _Runs],
    numbers: Mapping[str, int],
) -> None:
    """Notes which runs stand in these texts, the first of which has place `first`."""
    flat, owner = _flat(piece, numbers)
    for n, values, whole in _windows(flat, set(runs)):
        these, at = runs[n], np.flatnonzero(whole)
        place = np.searchsorted(these.known, values[at])
        there = these.known[np.minimum(place, len(these.known) - 1)] == values[at]
        place, text = place[there], owner[at[there]] + first
        new = these.found[place] < 0
        these.found[place[new][::-1]] = text[new][::-1]  # of several the first is written last


def _told(runs: _Runs) -> Iterator[tuple[int, Overlap]]:
    """The questions that share a run, by place."""
    hit = runs.found[runs.at] >= 0
    edges = np.zeros(len(runs.words_of) + 1, dtype=np.int64)
    np.add.at(edges, runs.start[hit], 1)
    np.add.at(edges, runs.start[hit] + runs.n, -1)
    covered = np.cumsum(edges[:-1]) > 0
    texts: dict[int, Counter[int]] = {}
    for i, text in zip(runs.owner[hit].tolist(), runs.found[runs.at[hit]].tolist(), strict=True):
        texts.setdefault(i, Counter())[text] += 1
    n_words, n_covered = Counter(runs.words_of.tolist()), Counter(runs.words_of[covered].tolist())
    for i, held in texts.items():
        # every question is followed by one place that is no word
        yield i, Overlap(n_covered[i] / (n_words[i] - 1), held.most_common(1)[0][0])


def _pieces(texts: Iterable[str]) -> Iterator[tuple[int, list[list[str]]]]:
    left, first = iter(texts), 0
    while piece := [words(text) for text in islice(left, _AT_ONCE)]:
        yield first, piece
        first += len(piece)


def _flat(texts: Sequence[Sequence[str]], numbers: Mapping[str, int]) -> tuple[Numbers, Places]:
    """The words' numbers with a 0 behind every text, and which text each is of."""
    known, flat = numbers.get, []
    for said in texts:
        flat += [known(word, 0) for word in said]
        flat.append(0)
    return np.array(flat, dtype=np.uint64), np.repeat(
        np.arange(len(texts)), [len(said) + 1 for said in texts]
    )


def _windows(flat: Numbers, lengths: set[int]) -> Iterator[tuple[int, Numbers, NDArray[np.bool_]]]:
    """(n, the number of every n words in a row, whether all of them are known) for each length."""
    unknown = np.concatenate([[0], np.cumsum(flat == 0)])
    values, power = np.zeros(len(flat), dtype=np.uint64), 1
    for n in range(1, min(RUN, len(flat)) + 1):
        values = values[: len(flat) - n + 1] + flat[n - 1 :] * np.uint64(power)
        power = power * _BASE % 2**64
        if n in lengths:
            yield n, values, unknown[n:] == unknown[:-n]
