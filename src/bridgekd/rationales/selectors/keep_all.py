"""Every rationale that the filters kept."""

from bridgekd.rationales.selectors import Candidates, Selector
from bridgekd.variants import NoOptions


def select(candidates: Candidates, options: NoOptions) -> list[int]:
    """Return every position."""
    return list(range(len(candidates.texts)))


SELECTOR = Selector(
    name="all",
    title="All rationales",
    summary="Keeps every rationale that the filters kept.",
    paper="arXiv 2512.20403",
    select=select,
    options=NoOptions,
)
