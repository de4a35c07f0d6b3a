"""How much of the test questions is in the training texts: the train file, and the rationales that
students were trained on.
"""

from collections.abc import Iterator, Mapping, Sequence

from bridgekd.io.artifact_store import Artifact
from bridgekd.io.read_pool import read_pool, read_validation
from bridgekd.io.row_files import read_column
from bridgekd.records import Example, Prediction, Rationale
from bridgekd.report.report_data import Contamination, OverlapAccuracy, OverlapSummary
from bridgekd.stages.load_data import LoadTestStats
from bridgekd.stages.train import TrainSettings
from bridgekd.stats.intervals import wilson_interval
from bridgekd.stats.mixed_effects import Estimate
from bridgekd.stats.ngram_overlap import MOSTLY_SEEN, NGRAM_SIZE, compute_overlaps
from bridgekd.throughput import WorkKind


def describe_contamination(ancestors: Mapping[str, Artifact]) -> str:
    """Return a sentence with the number of test questions that the train file contains."""
    for artifact in ancestors.values():
        if artifact.stage == "load_test":
            stats = artifact.read_stats(LoadTestStats)
            n = stats.n_also_in_train_file
            return f"{n} of {stats.n_test} test questions are in the train file."
    return ""


def compare_texts(
    test: Sequence[Example],
    ancestors: Mapping[str, Artifact],
    *,
    title: str = "",
    answers: Mapping[str, Prediction] | None = None,
) -> Contamination:
    """Return the number of test questions that share words with each source of training texts.

    `title` and `answers` are those of the leading arm; its accuracy is split by overlap.
    """
    questions = [e.question for e in test]
    rows, highest = [], [0.0] * len(test)
    for source, artifacts in _group_sources(ancestors).items():
        texts = [text for artifact in artifacts for text in _iter_texts(artifact)]
        fractions = compute_overlaps(questions, texts)
        highest = [max(pair) for pair in zip(highest, fractions, strict=True)]
        rows.append(
            OverlapSummary(
                source=source,
                n_texts=len(texts),
                n_shared=sum(f > 0 for f in fractions),
                n_mostly_seen=sum(f >= MOSTLY_SEEN for f in fractions),
                n_fully_seen=sum(f == 1 for f in fractions),
            )
        )
    return Contamination(
        sentence=describe_contamination(ancestors),
        n_test=len(test),
        rows=tuple(rows),
        title=title,
        by_overlap=() if answers is None else _split_accuracy(test, highest, answers),
    )


def _group_sources(ancestors: Mapping[str, Artifact]) -> dict[str, list[Artifact]]:
    """Return the pool, which is the same for all seeds, and the rationales of all students."""
    pools = [a for a in ancestors.values() if a.stage == "load_pool"]
    sources = {"Questions of the train file": pools[:1]}
    rationales = {
        rationale.path.name: rationale
        for student in ancestors.values()
        if student.manifest.kind is WorkKind.TRAINING
        and student.read_settings(TrainSettings).role == "student"
        for rationale in student.get_inputs("rationales")
    }
    for artifact in rationales.values():
        sources.setdefault(artifact.manifest.title, []).append(artifact)
    return sources


def _iter_texts(artifact: Artifact) -> Iterator[str]:
    """Yield the questions of a pool and its validation split, or the kept rationales."""
    if artifact.stage == "load_pool":
        yield from (e.question for e in (*read_pool(artifact), *read_validation(artifact)))
        return
    file = artifact.path / "rationales.parquet"
    texts, kept = (read_column(file, Rationale, name) for name in ("text", "kept"))
    yield from (text for text, is_kept in zip(texts, kept, strict=True) if is_kept)


def _split_accuracy(
    test: Sequence[Example], fractions: Sequence[float], answers: Mapping[str, Prediction]
) -> tuple[OverlapAccuracy, ...]:
    threshold = f"{100 * MOSTLY_SEEN:.0f} %"
    groups: dict[str, list[bool]] = {
        f"no {NGRAM_SIZE} consecutive words shared": [],
        f"less than {threshold} of the words shared": [],
        f"at least {threshold} of the words shared": [],
    }
    unseen, partly_seen, mostly_seen = groups.values()
    for example, fraction in zip(test, fractions, strict=True):
        if example.id in answers:
            group = mostly_seen if fraction >= MOSTLY_SEEN else partly_seen if fraction else unseen
            group.append(answers[example.id].correct)
    return tuple(
        OverlapAccuracy(name, len(group), _estimate_accuracy(group))
        for name, group in groups.items()
    )


def _estimate_accuracy(correct: Sequence[bool]) -> Estimate:
    n, n_correct = len(correct), sum(correct)
    return Estimate(n_correct / n if n else 0.0, *wilson_interval(n_correct, n))
