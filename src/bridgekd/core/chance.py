"""What can be had on a test set without reading its questions."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from string import ascii_uppercase


@dataclass(frozen=True, slots=True)
class Chance:
    """An accuracy in [0, 1], exact, and how it is had."""

    accuracy: float
    rule: str


def chance(answers: Sequence[str], choices: Sequence[Sequence[str]]) -> Chance:
    """The best of guessing among each question's options, always the same option's letter, and
    always the same answer; gold `answers` and their `choices` in one order, at least one.

    Which answer or letter that is, is read off these answers themselves: a hard bar, by little.
    """
    n = len(answers)
    common, times = Counter(" ".join(a.casefold().split()) for a in answers).most_common(1)[0]
    found = [(Fraction(times, n), f"always answering {common!r}")]
    letters = Counter(
        ascii_uppercase[options.index(answer)]
        for answer, options in zip(answers, choices, strict=True)
        if answer in options
    )
    if letters:
        letter, times = letters.most_common(1)[0]
        found.append((Fraction(times, n), f"always answering {letter}"))
        guessed = sum((Fraction(1, len(options)) for options in choices if options), Fraction(0))
        found.append((guessed / n, "guessing among the options"))
    share, rule = max(found)
    return Chance(float(share), rule)
