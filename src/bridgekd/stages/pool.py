"""From files to a ranking: load_pool, load_test, select. Nothing here is paid for."""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from bridgekd import lm
from bridgekd import settings as of
from bridgekd.config import AnswerKind, count_of
from bridgekd.core.draws import stream
from bridgekd.edges.columns import Rows, gathered, rows_in
from bridgekd.edges.data import examples_in, load_examples
from bridgekd.edges.rows import read_column, write_columns, write_rows, write_tables
from bridgekd.edges.sources import model_and_revision
from bridgekd.edges.store import Artifact, stage
from bridgekd.errors import BadInput
from bridgekd.records import Completion, Example, Pick, Score
from bridgekd.selection.diversity import center_embeddings
from bridgekd.selection.strategies import STRATEGIES
from bridgekd.selection.strategy import rank_pool
from bridgekd.stages.live import Live


@stage(version=2)
def load_pool(out: Path, s: of.LoadPool, source: Artifact, *, live: Live) -> dict[str, Any]:
    """The train file as pool and validation split: a seeded draw, so that every arm shares it."""
    pool, validation = pool_and_validation(source, s)
    write_tables(out / "pool.parquet", Example, pool.groups())
    write_tables(out / "validation.parquet", Example, validation.groups())
    (out / "task.json").write_text(json.dumps({"answer_kind": s.answer_kind}))
    return {"n_pool": len(pool), "n_validation": len(validation)}


@stage(version=1)
def load_test(
    out: Path, s: of.LoadTest, pool: Artifact, source: Artifact, *, live: Live
) -> dict[str, Any]:
    """The test file, and how many of its questions stand in the train file word for word."""
    test = load_examples(source.path, s.fields, answer_kind(pool))
    asked = {e.question for e in test}
    trained = chain(read_pool(pool), read_validation(pool))
    seen = {e.question for e in trained if e.question in asked}
    write_rows(out / "test.parquet", Example, test)
    return {"n_test": len(test), "n_also_in_train": sum(e.question in seen for e in test)}


@stage(version=2)
def select(
    out: Path,
    s: of.Select,
    pool: Artifact,
    *known: Artifact,
    live: Live,
) -> dict[str, Any]:
    """B questions in the order of choosing, then the rest.

    `known` may hold scores, embeddings in place of the scores' own, and what earlier rounds asked:
    that is left out of the ranking, and new picks keep their distance from it.
    """
    ids, domains = (read_column(pool.path / "pool.parquet", Example, n) for n in ("id", "domain"))
    difficulty, embeddings = np.zeros(len(ids)), np.empty((len(ids), 0), dtype=np.float32)
    scores = next((a for a in known if (a.path / "scores.parquet").is_file()), None)
    vectors = [a for a in known if (a.path / "embeddings.npy").is_file()]
    if scores is not None:
        difficulty = np.array(read_column(scores.path / "scores.parquet", Score, "difficulty"))
    if vectors:
        embeddings = np.load(vectors[-1].path / "embeddings.npy", mmap_mode="r")
        if s.centre:
            embeddings = center_embeddings(embeddings)
    strategy, options = STRATEGIES.load(s.strategy), STRATEGIES.parse_options(s.strategy)
    ranking = rank_pool(
        strategy,
        options,
        ids,
        difficulty,
        embeddings,
        domains=domains,
        already_asked=_asked(known),
        n_selected=part_of(n_queries(s.queries, len(ids)), s.part),
        seed=s.seed,
    )
    write_columns(out / "ranking.parquet", Pick, ranking.to_columns(ids))
    facts: dict[str, Any] = {"n_chosen": ranking.n_selected}
    if score_rule := strategy.describe_score(options):
        facts["score_rule"] = score_rule
    if ranking.n_filled:
        facts["n_filled"] = ranking.n_filled
    if scores is not None:
        facts["sum_of_scores"] = round(float(ranking.score[: ranking.n_selected].sum()), 6)
    if scores is not None and vectors:
        distance = ranking.distance_to_selection
        facts["mean_distance"] = round(float(distance.mean()), 6)
        facts["largest_distance"] = round(float(distance.max()), 6)
    return facts


def pool_and_validation(source: Artifact, s: of.LoadPool) -> tuple[Rows[Example], Rows[Example]]:
    """The train file's rows in two parts, each in the order of the file; gold answers all in the
    second.
    """
    labels = bytearray()

    def noted() -> Iterator[Example]:
        for example in examples_in(source.path, s.fields, s.answer_kind, unlabelled=s.unlabelled):
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


def _asked(known: Sequence[Artifact]) -> set[str]:
    """The ids of every completion among `known`."""
    files = [a.path / "completions.parquet" for a in known]
    return {id for f in files if f.is_file() for id in read_column(f, Completion, "id")}


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


def answer_kind(pool: Artifact) -> AnswerKind:
    """The kind of answer of the pool's task."""
    kind: AnswerKind = json.loads((pool.path / "task.json").read_text())["answer_kind"]
    return kind
