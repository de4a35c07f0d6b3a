"""How many steps a test question takes, by who can tell best."""

from collections.abc import Mapping, Sequence

from bridgekd.core.steps import grouped, n_steps
from bridgekd.edges.rows import read_rows
from bridgekd.edges.store import Artifact
from bridgekd.grading.answer_extraction import split_answer
from bridgekd.records import Example, Prediction
from bridgekd.stages.live import Checker


def steps_of(
    examples: Sequence[Example], check: Checker | None, answers: Mapping[str, Artifact]
) -> tuple[str, dict[str, str]]:
    """(who told, questions in groups by their steps, by id); nobody told: ("", {}).

    The checker tells all: the steps that an empty rationale lacks. Else it is the lines and
    sentences of the teacher's rationales for the questions that it was asked, right or wrong; else
    those of the trained assistant's. `answers` holds predictions by arm.
    """
    if check is not None:
        lacking = {e.id: found.n for e in examples if (found := check(e.question, "")) is not None}
        if any(lacking.values()):
            return "checker", grouped(lacking)
    for name in ("teacher", *(n for n in answers if n.endswith("assistant"))):
        if name in answers:
            rows = read_rows(answers[name].path / "predictions.parquet", Prediction)
            said = {r.id: n for r in rows if (n := n_steps(split_answer(r.text)[0]))}
            if said:
                return name, grouped(said)
    return "", {}
