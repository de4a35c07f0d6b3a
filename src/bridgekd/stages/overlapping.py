"""What of the test questions was trained on: the train file, and the rationales that students
learnt from.
"""

from collections.abc import Iterable, Iterator, Mapping

from bridgekd.core.crossed import Estimate
from bridgekd.core.overlap import MOSTLY, RUN, Overlap, overlaps
from bridgekd.core.statistics import wilson
from bridgekd.edges.rows import read_column
from bridgekd.edges.store import Artifact
from bridgekd.records import Example, Prediction, Rationale
from bridgekd.report.evidence import Compared, Contamination, Likeness
from bridgekd.stages.pool import LoadTestStats, read_pool, read_validation

_N_WORST = 5
_TAUGHT = ("train_student", "train_with_mentor")
_SOURCES = {
    "check": "The teacher's rationales that students learnt from",
    "annotate": "The assistant's rationales that students learnt from",
    "sample_rationales": "The assistant's sampled rationales that students learnt from",
}


def contamination(behind: Mapping[str, Artifact]) -> str:
    """How many test questions stand in the train file, in a sentence."""
    for artifact in behind.values():
        if artifact.stage == "load_test":
            stats = artifact.read_stats(LoadTestStats)
            return (
                f"{stats.n_also_in_train} of {stats.n_test} test questions stand word for word in "
                "the train file."
            )
    return ""


def compared_texts(
    test: list[Example],
    behind: Mapping[str, Artifact],
    lead: tuple[str, Mapping[str, Prediction]] | None,
) -> Contamination:
    """The test questions against all that students were taught; `lead` is an arm's title and its
    answers, whose accuracy is told apart by it.
    """
    questions = [e.question for e in test]
    rows, likest, most = [], [], [0.0] * len(test)
    for source, artifacts in _sources(behind).items():
        texts = list(_texts(artifacts))
        found = overlaps(questions, texts)
        most = [max(a, b.share) for a, b in zip(most, found, strict=True)]
        rows.append(_compared(source, len(texts), found))
        likest += _worst(source, questions, found, texts)
    likest.sort(key=lambda one: -one.share)
    return Contamination(
        sentence=contamination(behind),
        n_test=len(test),
        rows=tuple(rows),
        worst=tuple(likest),
        title="" if lead is None else lead[0],
        by_overlap=() if lead is None else _apart(test, most, lead[1]),
    )


def _sources(behind: Mapping[str, Artifact]) -> dict[str, list[Artifact]]:
    """What was trained on, by what it is; the train file is the same for all seeds."""
    pools = [a for a in behind.values() if a.stage == "load_pool"]
    found = {"The train file's questions": pools[:1]}
    taught: dict[str, Artifact] = {}
    for artifact in behind.values():
        if artifact.stage in _TAUGHT:
            taught |= {a.path.name: a for a in artifact.get_inputs("rationales")}
    for stage, source in _SOURCES.items():
        if those := [a for a in taught.values() if a.stage == stage]:
            found[source] = those
    return found


def _texts(artifacts: Iterable[Artifact]) -> Iterator[str]:
    """Questions of a pool with those set aside, or kept rationales, one after another."""
    for artifact in artifacts:
        if artifact.stage == "load_pool":
            yield from (e.question for e in (*read_pool(artifact), *read_validation(artifact)))
        else:
            file = artifact.path / "rationales.parquet"
            texts, kept = (read_column(file, Rationale, name) for name in ("text", "kept"))
            yield from (text for text, is_kept in zip(texts, kept, strict=True) if is_kept)


def _compared(source: str, n_texts: int, found: list[Overlap]) -> Compared:
    return Compared(
        source=source,
        n_texts=n_texts,
        n_shared=sum(o.share > 0 for o in found),
        n_mostly=sum(o.share >= MOSTLY for o in found),
        n_whole=sum(o.share == 1 for o in found),
    )


def _worst(
    source: str, questions: list[str], found: list[Overlap], texts: list[str]
) -> list[Likeness]:
    """The questions of which most was found, each with a text that holds it."""
    order = sorted(range(len(found)), key=lambda i: -found[i].share)[:_N_WORST]
    return [
        Likeness(source, found[i].share, questions[i], texts[place])
        for i in order
        if (place := found[i].text) is not None
    ]


def _apart(
    test: list[Example], shares: list[float], answers: Mapping[str, Prediction]
) -> tuple[tuple[str, int, Estimate], ...]:
    some, most = f"some shared, below {100 * MOSTLY:.0f} %", f"{100 * MOSTLY:.0f} %"
    names = (
        f"no run of {RUN} words shared",
        f"{some} of the words",
        f"{most} of the words or more",
    )
    group = [0 if share == 0 else 1 if share < MOSTLY else 2 for share in shares]
    found = []
    for place, name in enumerate(names):
        right = [
            answers[e.id].correct
            for e, its in zip(test, group, strict=True)
            if its == place and e.id in answers
        ]
        mean = sum(right) / len(right) if right else 0.0
        found.append((name, len(right), Estimate(mean, *wilson(sum(right), len(right)))))
    return tuple(found)
