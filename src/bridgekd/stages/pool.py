"""From files to a ranking: load_pool, load_test, select. Nothing here is paid for."""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from bridgekd import lm
from bridgekd import settings as of
from bridgekd.config import count_of
from bridgekd.core.draws import stream
from bridgekd.edges.columns import Rows, gathered, rows_in
from bridgekd.edges.data import examples_in, load_examples
from bridgekd.edges.rows import read_column, write_columns, write_rows, write_tables
from bridgekd.edges.sources import model_and_revision
from bridgekd.edges.store import Artifact, Stats, stage
from bridgekd.errors import BadInput
from bridgekd.grading.answer_type import AnswerType, load_answer_type
from bridgekd.records import Completion, Example, Pick, Score
from bridgekd.selection.diversity import center_embeddings
from bridgekd.selection.strategies import STRATEGIES
from bridgekd.selection.strategy import rank_pool
from bridgekd.stages.live import Live
from bridgekd.variants import VariantSettings


class LoadPoolStats(Stats):
    n_pool: int
    n_validation: int


class LoadTestStats(Stats):
    n_test: int
    n_also_in_train: int


class SelectStats(Stats):
    """`n_filled` picks were no strategy's; distances are to the nearest pick, over the pool."""

    n_chosen: int
    score_rule: str | None = None
    n_filled: int | None = None
    sum_of_scores: float | None = None
    mean_distance: float | None = None
    largest_distance: float | None = None


@stage(version=2, title="Pool")
def load_pool(out: Path, s: of.LoadPool, live: Live, source: Artifact) -> LoadPoolStats:
    """The train file as pool and validation split: a seeded draw, so that every arm shares it."""
    pool, validation = pool_and_validation(source, s)
    write_tables(out / "pool.parquet", Example, pool.groups())
    write_tables(out / "validation.parquet", Example, validation.groups())
    (out / "task.json").write_text(
        json.dumps({"answer_type": s.answer_type.model_dump(mode="json")})
    )
    return LoadPoolStats(n_pool=len(pool), n_validation=len(validation))


@stage(version=1, title="Test set")
def load_test(
    out: Path, s: of.LoadTest, live: Live, pool: Artifact, source: Artifact
) -> LoadTestStats:
    """The test file, and how many of its questions stand in the train file word for word."""
    test = load_examples(source.path, s.fields, read_answer_type(pool))
    asked = {e.question for e in test}
    trained = chain(read_pool(pool), read_validation(pool))
    seen = {e.question for e in trained if e.question in asked}
    write_rows(out / "test.parquet", Example, test)
    return LoadTestStats(n_test=len(test), n_also_in_train=sum(e.question in seen for e in test))


@stage(version=2, title="Selection")
def select(
    out: Path,
    s: of.Select,
    live: Live,
    pool: Artifact,
    scores: Artifact | None = None,
    embeddings: Artifact | None = None,
    *answers: Artifact,
) -> SelectStats:
    """B questions in the order of choosing, then the rest.

    `embeddings` take the place of the scores' own. What earlier rounds asked, `answers`, is left
    out of the ranking, and new picks keep their distance from it.
    """
    ids, domains = (read_column(pool.path / "pool.parquet", Example, n) for n in ("id", "domain"))
    difficulty, vectors = np.zeros(len(ids)), np.empty((len(ids), 0), dtype=np.float32)
    if scores is not None:
        difficulty = np.array(read_column(scores.path / "scores.parquet", Score, "difficulty"))
    file = find_embeddings(embeddings, scores)
    if file is not None:
        vectors = np.load(file, mmap_mode="r")
        if s.centre:
            vectors = center_embeddings(vectors)
    strategy, options = STRATEGIES.load(s.strategy), STRATEGIES.parse_options(s.strategy)
    ranking = rank_pool(
        strategy,
        options,
        ids,
        difficulty,
        vectors,
        domains=domains,
        already_asked=_asked(answers),
        n_selected=part_of(n_queries(s.queries, len(ids)), s.part),
        seed=s.seed,
    )
    write_columns(out / "ranking.parquet", Pick, ranking.to_columns(ids))
    total = round(float(ranking.score[: ranking.n_selected].sum()), 6)
    distance = None if scores is None or file is None else ranking.distance_to_selection
    return SelectStats(
        n_chosen=ranking.n_selected,
        score_rule=strategy.describe_score(options) or None,
        n_filled=ranking.n_filled or None,
        sum_of_scores=None if scores is None else total,
        mean_distance=None if distance is None else round(float(distance.mean()), 6),
        largest_distance=None if distance is None else round(float(distance.max()), 6),
    )


def find_embeddings(*artifacts: Artifact | None) -> Path | None:
    """Return the first of the artifacts' embedding files; a server that scores gives none."""
    files = [a.path / "embeddings.npy" for a in artifacts if a is not None]
    return next((file for file in files if file.is_file()), None)


def pool_and_validation(source: Artifact, s: of.LoadPool) -> tuple[Rows[Example], Rows[Example]]:
    """The train file's rows in two parts, each in the order of the file; gold answers all in the
    second.
    """
    labels, answer_type = bytearray(), load_answer_type(s.answer_type)

    def noted() -> Iterator[Example]:
        for example in examples_in(source.path, s.fields, answer_type, unlabelled=s.unlabelled):
            labels.append(example.answer is not None)
            yield example

    examples = gathered(Example, noted())
    labelled = np.flatnonzero(np.frombuffer(labels, dtype=np.uint8))
    n_validation = count_of(s.validation, len(labelled))
    if n_validation >= len(examples):
        raise BadInput(
            f"data.validation of {s.validation} leaves no pool of the {len(examples)} rows in "
            f"{source.path}; give less"
        )
    drawn = stream(s.seed, "validation").permutation(len(labelled))[:n_validation]
    aside = np.zeros(len(examples), dtype=bool)
    aside[labelled[drawn]] = True
    return examples.where(~aside), examples.where(aside)


def n_queries(amount: int | str | None, n_pool: int) -> int:
    """B: the budget's queries for a pool of n; without such a limit the whole pool may be asked."""
    if amount is None:
        return n_pool
    n = count_of(amount, n_pool)
    if n > n_pool:
        raise BadInput(
            f"budget.queries of {n} is above the {n_pool} questions of the pool; "
            f"give at most {n_pool}"
        )
    return n


def _asked(answers: Sequence[Artifact]) -> set[str]:
    """The ids of every completion."""
    files = [a.path / "completions.parquet" for a in answers]
    return {id for file in files for id in read_column(file, Completion, "id")}


def part_of(amount: int, part: of.Part) -> int:
    """The whole number between two shares of an amount."""
    start, end = (math.floor(amount * share + 0.5) for share in part)
    return end - start


def open_model(model: Artifact, live: Live) -> "lm.LocalModel":
    """A model artifact, ready to score or to write."""
    name, revision = model_and_revision(model)
    return lm.load(name, device=live.device, revision=revision)


def read_pool(pool: Artifact) -> Rows[Example]:
    """The pool's examples in the order of the file, which are read as they are looked at."""
    return rows_in(pool.path / "pool.parquet", Example)


def read_validation(pool: Artifact) -> Rows[Example]:
    """The examples set aside for early stopping."""
    return rows_in(pool.path / "validation.parquet", Example)


def by_id(examples: Iterable[Example], ids: Iterable[str]) -> dict[str, Example]:
    """The examples that are named, and no others."""
    wanted = set(ids)
    return {e.id: e for e in examples if e.id in wanted}


def read_answer_type(pool: Artifact) -> AnswerType:
    """Return the type of the answers of the pool's task."""
    task = json.loads((pool.path / "task.json").read_text())
    return load_answer_type(VariantSettings.model_validate(task["answer_type"]))
