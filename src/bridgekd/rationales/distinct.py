"""Rationales that are unlike each other."""

from pydantic import Field

from bridgekd.rationales import Candidates, KeepOptions, Selector

WORDS_PER_PHRASE = 3


class DistinctOptions(KeepOptions):
    """n_kept: rationales of a question that are kept, at most."""

    n_kept: int = Field(2, ge=1, le=64)


def compute_similarity(first: str, second: str) -> float:
    """Return the Jaccard similarity of the three-word phrases of two texts, in [0, 1].

    >>> compute_similarity("Ann has two red pens .", "Ann has two red cups .")
    0.3333333333333333
    """
    a, b = _list_phrases(first), _list_phrases(second)
    return len(a & b) / len(a | b)


def select_distinct(candidates: Candidates, options: DistinctOptions) -> list[int]:
    """Return the first position, then each time the one that is least like those before. Ours."""
    texts = candidates.texts
    chosen = [0]
    closest = [compute_similarity(texts[0], text) for text in texts]
    while len(chosen) < min(options.n_kept, len(texts)):
        rest = [i for i in range(len(texts)) if i not in chosen]
        chosen.append(min(rest, key=lambda i: closest[i]))
        closest = [
            max(value, compute_similarity(texts[chosen[-1]], text))
            for value, text in zip(closest, texts, strict=True)
        ]
    return chosen


def _list_phrases(text: str) -> set[tuple[str, ...]]:
    """Return the phrases of a text; a shorter text is one phrase."""
    words = text.lower().split()
    starts = range(max(1, len(words) - WORDS_PER_PHRASE + 1))
    return {tuple(words[i : i + WORDS_PER_PHRASE]) for i in starts}


SELECTOR = Selector(
    name="distinct",
    title="Distinct rationales",
    summary="Keeps two rationales or more that share the fewest phrases of three words.",
    paper="",
    select=select_distinct,
    options=DistinctOptions,
)
