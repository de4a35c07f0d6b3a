"""The accuracy that is possible without reading the test questions."""

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
    """Return the best of three rules: a random choice, always one letter, always one answer.

    answers: [n] gold answers, n > 0. choices: [n], the choices of each question, or (). The best
    letter and the best answer come from these answers, which makes the baseline slightly harder.
    >>> compute_chance_baseline(["yes", "yes", "no"], [(), (), ()])
    ChanceBaseline(accuracy=0.6666666666666666, rule="always answering 'yes'")
    """
    n = len(answers)
    answer, count = Counter(" ".join(a.casefold().split()) for a in answers).most_common(1)[0]
    rules = [(Fraction(count, n), f"always answering {answer!r}")]
    letters = Counter(
        ascii_uppercase[texts.index(gold)]
        for gold, texts in zip(answers, choices, strict=True)
        if gold in texts
    )
    if letters:
        letter, count = letters.most_common(1)[0]
        rules.append((Fraction(count, n), f"always answering {letter}"))
        n_guessed = sum((Fraction(1, len(texts)) for texts in choices if texts), Fraction(0))
        rules.append((n_guessed / n, "guessing among the choices"))
    accuracy, rule = max(rules)
    return ChanceBaseline(float(accuracy), rule)
