"""Measure how much of a test question is in the training data, word for word.

The rule is GPT-3's (arXiv 2005.14165, appendix C): case and punctuation are ignored, and an n-gram
has 13 words, or all words of a question of 8 to 12 words. Shorter questions would match by chance,
so they must equal a complete text. Only n-grams of the questions are kept in memory.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

NGRAM_SIZE, MIN_NGRAM_SIZE = 13, 8
MOSTLY_SEEN = 0.8  # a question with this fraction of its words counts as seen (arXiv 2307.09288)
_WORD = re.compile(r"\w+")

Ngram = tuple[str, ...]


def split_words(text: str) -> list[str]:
    """Return the words of a text in lower case.

    >>> split_words("Is it? It IS.")
    ['is', 'it', 'it', 'is']
    """
    return _WORD.findall(text.casefold())


def compute_overlaps(questions: Sequence[str], texts: Iterable[str]) -> list[float]:
    """Return for every question the fraction of its words that is in n-grams of `texts`, in [0, 1].

    >>> compute_overlaps(["one two", "three"], ["One, two!"])
    [1.0, 0.0]
    """
    split = [split_words(question) for question in questions]
    candidates = {ngram for words in split for ngram in _iter_ngrams(words, _get_size(words))}
    sizes = {_get_size(words) for words in split if len(words) >= MIN_NGRAM_SIZE}
    seen: set[Ngram] = set()
    for text in texts:
        words = split_words(text)
        for size in sizes:
            seen |= candidates.intersection(_iter_ngrams(words, size))
        if len(words) < MIN_NGRAM_SIZE:
            seen |= candidates & {tuple(words)}
    return [_compute_fraction(words, seen) for words in split]


def _compute_fraction(words: Sequence[str], seen: set[Ngram]) -> float:
    size = _get_size(words)
    covered = {
        position
        for start, ngram in enumerate(_iter_ngrams(words, size))
        if ngram in seen
        for position in range(start, start + size)
    }
    return len(covered) / len(words) if words else 0.0


def _iter_ngrams(words: Sequence[str], size: int) -> Iterator[Ngram]:
    return zip(*(words[start:] for start in range(size)), strict=False)


def _get_size(words: Sequence[str]) -> int:
    return min(NGRAM_SIZE, len(words))
