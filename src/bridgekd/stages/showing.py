"""Test questions side by side, picked by a rule and not by hand."""

from collections.abc import Mapping

from bridgekd.core.draws import drawn
from bridgekd.edges.rows import read_rows
from bridgekd.edges.store import Artifact
from bridgekd.records import Example, Prediction
from bridgekd.report.evidence import Shown, SideBySide
from bridgekd.stages.naming import TITLES, in_order

N_EXAMPLES = 10
_SHOWN = ("teacher", "assistant", "random_assistant", "direct", "ta_in_the_loop", "random")
Answers = Mapping[str, Mapping[str, Prediction]]  # by arm and question id


def answers_of(first: Mapping[str, Artifact]) -> dict[str, dict[str, Prediction]]:
    """What the first model of every arm answered, by arm and question id."""
    return {
        name: {r.id: r for r in read_rows(made.path / "predictions.parquet", Prediction)}
        for name, made in first.items()
    }


def side_by_side(test: list[Example], answers: Answers, lead: str) -> Shown:
    """Ten questions that all shown arms were asked: five that `lead` answered right and five that
    it answered wrong, each drawn at random by a fixed seed; where one kind has fewer the other
    fills up.
    """
    shown = [n for n in in_order(answers) if n in _SHOWN or n == lead]
    both = [e for e in test if all(e.id in answers[name] for name in shown)]
    if lead not in answers or not both:
        return Shown("No question was put to all of them.")
    right = [e for e in both if answers[lead][e.id].correct]
    wrong = [e for e in both if not answers[lead][e.id].correct]
    half = N_EXAMPLES // 2
    n_right = min(len(right), max(half, N_EXAMPLES - len(wrong)))
    chosen = _drawn(right, n_right, "right") + _drawn(wrong, N_EXAMPLES - n_right, "wrong")
    title = TITLES.get(lead, lead)
    rule = (
        f"Nobody picked these. Of the {len(both)} questions that all of them were asked, "
        f"{title} answered {len(right)} right and {len(wrong)} wrong; {n_right} of the former and "
        f"{len(chosen) - n_right} of the latter were drawn at random, by a fixed seed."
    )
    return Shown(rule, tuple(_row(e, answers, shown) for e in chosen))


def _drawn(examples: list[Example], n: int, purpose: str) -> list[Example]:
    return [examples[i] for i in drawn(0, f"shown {purpose}", n=n, of=len(examples))]


def _row(example: Example, answers: Answers, shown: list[str]) -> SideBySide:
    said = [(TITLES.get(n, n), answers[n][example.id]) for n in shown]
    return SideBySide(
        question=example.question,
        gold=example.answer or "",
        domain=example.domain,
        answers=tuple((title, row.text, row.correct) for title, row in said),
    )
