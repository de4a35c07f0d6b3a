"""The rationale in which the assistant is most confident."""

from bridgekd.rationales import Candidates, KeepOptions, Selector, keep_first


def select_most_confident(candidates: Candidates, options: KeepOptions) -> list[int]:
    """Return the positions of the rationales with the highest confidence. Ours."""
    return keep_first([-c for c in candidates.confidences], options.n_kept)


SELECTOR = Selector(
    name="confident",
    title="Most confident rationales",
    summary="Keeps the rationale with the highest probability of a token for the assistant.",
    paper="",
    select=select_most_confident,
    needs_confidence=True,
)
