"""The longest rationale: the opposite of `shortest`, to compare with."""

from bridgekd.rationales import Candidates, KeepOptions, Selector, keep_first


def select_longest(candidates: Candidates, options: KeepOptions) -> list[int]:
    """Return the positions of the rationales with the most tokens of the student."""
    return keep_first([-n for n in candidates.n_tokens], options.n_kept)


SELECTOR = Selector(
    name="longest",
    title="Longest rationales",
    summary="Keeps the rationale with the most tokens of the student.",
    paper="arXiv 2512.20908",
    select=select_longest,
)
