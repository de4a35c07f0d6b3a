"""The shortest rationale, in tokens of the student: a shorter student is a cheaper one."""

from bridgekd.rationales import Candidates, KeepOptions, Selector, keep_first


def select_shortest(candidates: Candidates, options: KeepOptions) -> list[int]:
    """Return the positions of the rationales with the fewest tokens.

    Source: the shortest correct one of several samples, TOPS (arXiv 2502.18080). There the samples
    have three levels of effort; that here they differ by chance alone is our reading.
    """
    return keep_first(candidates.n_tokens, options.n_kept)


SELECTOR = Selector(
    name="shortest",
    title="Shortest rationales",
    summary="Keeps the rationale with the fewest tokens of the student.",
    paper="arXiv 2502.18080",
    select=select_shortest,
)
