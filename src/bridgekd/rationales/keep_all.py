"""Every rationale that the filters kept."""

from bridgekd.rationales import Candidates, Selector
from bridgekd.variants import NoOptions


def select_all(candidates: Candidates, options: NoOptions) -> list[int]:
    """Return every position."""
    return list(range(len(candidates.texts)))


SELECTOR = Selector(
    name="all",
    title="All rationales",
    summary="Keeps every rationale that the filters kept.",
    paper="arXiv 2512.20403",
    select=select_all,
    options=NoOptions,
)
