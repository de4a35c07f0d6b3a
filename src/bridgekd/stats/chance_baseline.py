"""The accuracy that needs no reading of the test questions."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from string import ascii_uppercase


@dataclass(frozen=True, slots=True)
class ChanceBaseline:
    """An exact accuracy in [0, 1], and the rule that reaches it."""

    accuracy: float
    rule: str


def compute_chance_baseline(
    answers: Sequence[str], choices: Sequence[Sequence[str]]
) -> ChanceBaseline:
    """Return the best of three rules: a random choice, always the same letter, and always the same
    answer. Gold `answers` and their `choices` have one order; at least one question.

    The best letter and answer are found on these answers, which makes the baseline slightly harder.

    >>> compute_chance_baseline(["yes", "yes", "no"], [(), (), ()])
    ChanceBaseline(accuracy=0.6666666666666666, rule="always answering 'yes'")
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
    return ChanceBaseline(float(share), rule)
