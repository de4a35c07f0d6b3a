"""The rationale with the most sentences that are the assistant's and not the student's."""

from pydantic import Field

from bridgekd.rationales import Candidates, KeepOptions, Selector, keep_first


class AssistantLikeOptions(KeepOptions):
    """margin: the difference of probabilities above which a sentence belongs to one model (beta of
    the paper, which used 0.05, 0.1 and 0.15).
    """

    margin: float = Field(0.1, ge=0, lt=1)


def select_assistant_like(candidates: Candidates, options: AssistantLikeOptions) -> list[int]:
    """Return the positions of the rationales with the largest count of the assistant's sentences:
    those with p_assistant - p_student > margin (arXiv 2512.20908).

    The paper measures the teacher's sentences. A paid teacher gives no probabilities of a given
    text, so the assistant takes its place: our reading. The count prefers long rationales.
    """
    counts = [
        sum(score.assistant - score.student > options.margin for score in sentences)
        for sentences in candidates.sentences
    ]
    return keep_first([-n for n in counts], options.n_kept)


SELECTOR = Selector(
    name="assistant_like",
    title="Rationales like the assistant's",
    summary="Keeps the rationale with the most sentences that are likelier for the assistant than "
    "for the student.",
    paper="arXiv 2512.20908",
    select=select_assistant_like,
    options=AssistantLikeOptions,
    needs_sentences=True,
)
