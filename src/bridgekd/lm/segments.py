"""Tokens of two tokenizers over one text, matched in segments. Pure.

A *segment* is a run of tokens of each side that stand for the same text.
"""

from collections.abc import Callable, Sequence

Segment = tuple[slice, slice]  # our tokens, their tokens
# (our byte ends, their byte ends) -> segments in order
MatchTokens = Callable[[Sequence[int], Sequence[int]], list[Segment]]


def align_tokens(our_ends: Sequence[int], their_ends: Sequence[int]) -> list[Segment]:
    """Return the smallest segments that cover the same bytes, at least one; they partition both
    sides (arXiv 2503.20083).

    An end is the number of bytes from the start of the text to the end of a token, ascending. The
    last token of a side has a byte at least, and both sides end at the same byte. A token without
    bytes belongs to what follows.
    >>> align_tokens([3, 4, 9], [4, 6, 9])
    [(slice(0, 2, None), slice(0, 1, None)), (slice(2, 3, None), slice(1, 3, None))]
    """
    segments: list[Segment] = []
    i = j = start = 0
    while i < len(our_ends):
        first, a, b = (i, j), start, start
        while not a == b > start:
            if a <= b:
                a, i = our_ends[i], i + 1
            else:
                b, j = their_ends[j], j + 1
        segments.append((slice(first[0], i), slice(first[1], j)))
        start = a
    return segments


def pair_positions(our_ends: Sequence[int], their_ends: Sequence[int]) -> list[Segment]:
    """Return token k of one side with token k of the other, up to the end of the shorter side.

    >>> pair_positions([3, 4, 9], [5, 9])
    [(slice(0, 1, None), slice(0, 1, None)), (slice(1, 2, None), slice(1, 2, None))]
    """
    n_pairs = min(len(our_ends), len(their_ends))
    return [(slice(k, k + 1), slice(k, k + 1)) for k in range(n_pairs)]


def number_tokens(spans: Sequence[slice], n_tokens: int) -> tuple[int, ...]:
    """Return the number of the span that each token is in; that of none is the number of spans.

    >>> number_tokens([slice(0, 2), slice(2, 3)], 4)
    (0, 0, 1, 2)
    """
    numbers = [len(spans)] * n_tokens
    for number, span in enumerate(spans):
        numbers[span] = [number] * (span.stop - span.start)
    return tuple(numbers)
