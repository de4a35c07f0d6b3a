"""Sampled test questions with the answers of several arms."""

from collections.abc import Mapping, Sequence

from bridgekd.io.artifact_store import Artifact, find_ancestors
from bridgekd.io.row_files import read_rows
from bridgekd.records import Example, Prediction
from bridgekd.report.report_data import PredictionRow, SampledPredictions, ShownAnswer
from bridgekd.rng import sample_indices
from bridgekd.stages.train import train_assistant
from bridgekd.stats.compute_metrics import REFERENCE_ARM, TEACHER_ARM

N_EXAMPLES = 10

Answers = Mapping[str, Mapping[str, Prediction]]  # by arm and question id


def read_answers(predictions: Mapping[str, Artifact]) -> dict[str, dict[str, Prediction]]:
    """Return the answers by arm and question id."""
    return {
        name: {r.id: r for r in read_rows(artifact.path / "predictions.parquet", Prediction)}
        for name, artifact in predictions.items()
    }


def list_shown_arms(predictions: Mapping[str, Artifact], lead: str) -> list[str]:
    """Return the teacher, the reference and the assistants of the arm `lead`, then `lead`."""
    ancestors = find_ancestors(predictions[lead])
    shown = [
        name
        for name, artifact in predictions.items()
        if name in (TEACHER_ARM, REFERENCE_ARM)
        or any(
            model.stage == train_assistant.name and model.path.name in ancestors
            for model in artifact.get_inputs("model")
        )
    ]
    return [*(name for name in shown if name != lead), lead]


def sample_predictions(
    test: Sequence[Example],
    answers: Answers,
    shown: Sequence[str],
    titles: Mapping[str, str],
) -> SampledPredictions:
    """Return ten of the questions that all `shown` arms answered, sampled with a fixed seed.

    The last arm of `shown` answered five of them correctly and five wrong. If there are too few of
    one type, there are more of the other.
    """
    common = [e for e in test if all(e.id in answers[name] for name in shown)]
    if not shown or not common:
        return SampledPredictions("No question was answered by all of these arms.")
    lead = shown[-1]
    correct = [e for e in common if answers[lead][e.id].correct]
    wrong = [e for e in common if not answers[lead][e.id].correct]
    n_correct = min(len(correct), max(N_EXAMPLES // 2, N_EXAMPLES - len(wrong)))
    sample = _sample(correct, n_correct, "right")
    sample += _sample(wrong, N_EXAMPLES - n_correct, "wrong")
    rule = (
        f"These questions are a random sample with a fixed seed. {titles[lead]} answered "
        f"{len(correct)} of {len(common)} questions correctly and {len(wrong)} wrong. The sample "
        f"has {n_correct} of the correct answers and {len(sample) - n_correct} of the wrong ones."
    )
    return SampledPredictions(rule, tuple(_build_row(e, answers, shown, titles) for e in sample))


def _sample(examples: Sequence[Example], n: int, purpose: str) -> list[Example]:
    return [examples[i] for i in sample_indices(0, f"shown {purpose}", n=n, of=len(examples))]


def _build_row(
    example: Example, answers: Answers, shown: Sequence[str], titles: Mapping[str, str]
) -> PredictionRow:
    rows = ((titles[name], answers[name][example.id]) for name in shown)
    return PredictionRow(
        question=example.question,
        gold=example.answer or "",
        domain=example.domain,
        answers=tuple(ShownAnswer(title, row.text, row.correct) for title, row in rows),
    )
