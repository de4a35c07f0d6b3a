"""From files to a ranking: load_pool, load_test, score_pool, select. Nothing here is paid for."""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bridgekd import lm
from bridgekd import settings as of
from bridgekd.config import AnswerKind, count_of
from bridgekd.core.difficulty import n_distinct, vote_entropy
from bridgekd.core.diversity import centred
from bridgekd.core.draws import SAMPLING_TEMPERATURE, SEED_STEP, stream
from bridgekd.core.grading import read_answer
from bridgekd.core.prompts import answer_prompt, render_question
from bridgekd.core.selection import STRATEGIES, rank
from bridgekd.edges.data import load_examples
from bridgekd.edges.rows import read_column, read_rows, write_columns, write_rows
from bridgekd.edges.sources import model_and_revision
from bridgekd.edges.store import Artifact, stage
from bridgekd.errors import BadInput
from bridgekd.records import Example, Pick, Score
from bridgekd.stages.live import Live

# The others are read off what a model writes.
IN_ONE_PASS: "dict[str, Literal['loss', 'entropy', 'margin']]" = {
    "loss": "loss",
    "entropy": "entropy",
    "margin": "margin",
}


@stage(version=1)
def load_pool(out: Path, s: of.LoadPool, source: Artifact, *, live: Live) -> dict[str, Any]:
    """The train file as pool and validation split: a seeded draw, so that every arm shares it."""
    pool, validation = pool_and_validation(source, s)
    write_rows(out / "pool.parquet", Example, pool)
    write_rows(out / "validation.parquet", Example, validation)
    (out / "task.json").write_text(json.dumps({"answer_kind": s.answer_kind}))
    return {"n_pool": len(pool), "n_validation": len(validation)}


@stage(version=1)
def load_test(
    out: Path, s: of.LoadTest, pool: Artifact, source: Artifact, *, live: Live
) -> dict[str, Any]:
    """The test file, and how many of its questions stand in the train file word for word."""
    test = load_examples(source.path, s.fields, answer_kind(pool))
    seen = {e.question for e in read_pool(pool) + read_validation(pool)}
    write_rows(out / "test.parquet", Example, test)
    return {"n_test": len(test), "n_also_in_train": sum(e.question in seen for e in test)}


@stage(version=2)
def score_pool(
    out: Path,
    s: of.ScorePool,
    pool: Artifact,
    assistant: Artifact,
    *committee: Artifact,
    live: Live,
) -> dict[str, Any]:
    """How hard every question is for the warm assistant, and its embedding from the same pass.

    `loss` needs gold answers. `entropy`, `margin`, `consistency` and `disagreement` (of the
    assistant with the others of its committee) need none.
    """
    examples = read_pool(pool)
    local = open_model(assistant, live)
    scored = lm.score(
        local,
        examples,
        measure=IN_ONE_PASS.get(s.difficulty),
        max_new_tokens=s.max_new_tokens,
        batch_size=s.batch_size,
        progress=live.progress,
    )
    difficulty = scored.difficulty
    if s.difficulty == "consistency":
        said = [_answers(pool, local, s, live, sample=k) for k in range(s.samples)]
        difficulty = np.array([n_distinct(answers) for answers in zip(*said, strict=True)])
    if s.difficulty == "disagreement":
        said = [_answers(pool, local, s, live)]
        said += [_answers(pool, open_model(member, live), s, live) for member in committee]
        difficulty = np.array([vote_entropy(answers) for answers in zip(*said, strict=True)])
    rows = [
        Score(e.id, float(d), int(t))
        for e, d, t in zip(examples, difficulty, scored.n_answer_tokens, strict=True)
    ]
    write_rows(out / "scores.parquet", Score, rows)
    np.save(out / "embeddings.npy", scored.embeddings)
    return {"n_scored": len(rows), "mean_difficulty": round(float(np.mean(difficulty)), 4)}


@stage(version=1)
def embed_pool(
    out: Path, s: of.EmbedPool, pool: Artifact, encoder: Artifact, *, live: Live
) -> dict[str, Any]:
    """The questions' embeddings by a sentence-transformers model, in place of the assistant's."""
    name, _ = model_and_revision(encoder)
    texts = [render_question(e) for e in read_pool(pool)]
    embeddings = lm.embed(
        name, texts, device=live.device, batch_size=s.batch_size, progress=live.progress
    )
    np.save(out / "embeddings.npy", embeddings)
    return {"n_embedded": len(texts), "width": int(embeddings.shape[1])}


@stage(version=2)
def select(
    out: Path,
    s: of.Select,
    pool: Artifact,
    scores: Artifact | None = None,
    vectors: Artifact | None = None,
    *,
    live: Live,
) -> dict[str, Any]:
    """B questions in the order of choosing, then the rest; a strategy that needs no scores gets
    none. Embeddings are the scores' own unless `vectors` holds others.
    """
    ids, domains = (read_column(pool.path / "pool.parquet", Example, n) for n in ("id", "domain"))
    difficulty, embeddings = np.zeros(len(ids)), np.empty((len(ids), 0), dtype=np.float32)
    if scores is not None:
        difficulty = np.array(read_column(scores.path / "scores.parquet", Score, "difficulty"))
        embeddings = np.load((vectors or scores).path / "embeddings.npy", mmap_mode="r")
        if s.centre:
            embeddings = centred(embeddings)
    ranking = rank(
        s.strategy,
        ids,
        difficulty,
        embeddings,
        domains=domains,
        n_chosen=n_queries(s.queries, len(ids)),
        alpha=s.alpha,
        seed=s.seed,
    )
    write_columns(out / "ranking.parquet", Pick, ranking.columns(ids))
    facts: dict[str, Any] = {"n_chosen": ranking.n_chosen}
    if ranking.n_filled:
        facts["n_filled"] = ranking.n_filled
    if scores is None:
        return facts
    mean, largest = ranking.coverage
    return facts | {
        "sum_of_scores": round(float(ranking.score[: ranking.n_chosen].sum()), 6),
        "mean_distance": round(mean, 6),
        "largest_distance": round(largest, 6),
    }


def _answers(
    pool: Artifact,
    local: "lm.LocalModel",
    s: of.ScorePool,
    live: Live,
    *,
    sample: int | None = None,
) -> list[str]:
    """The model's canonical answers to the pool: greedy, or a numbered sample."""
    examples, kind = read_pool(pool), answer_kind(pool)
    texts = lm.generate(
        local,
        [answer_prompt(e) for e in examples],
        max_new_tokens=s.max_new_tokens,
        batch_size=s.batch_size,
        temperature=0.0 if sample is None else SAMPLING_TEMPERATURE,
        seed=0 if sample is None else s.seed + SEED_STEP * sample,
        progress=live.progress,
        label="answer the pool" if sample is None else f"sample {sample + 1} of the pool",
    )
    return [read_answer(t, kind, e.choices) for e, t in zip(examples, texts, strict=True)]


def pool_and_validation(source: Artifact, s: of.LoadPool) -> tuple[list[Example], list[Example]]:
    """The train file's rows in two parts, each in the order of the file; gold answers all in the
    second.
    """
    examples = load_examples(source.path, s.fields, s.answer_kind, unlabelled=s.unlabelled)
    labelled = [i for i, e in enumerate(examples) if e.answer is not None]
    n_validation = count_of(s.validation, len(labelled))
    if n_validation >= len(examples):
        raise BadInput(
            f"data.validation of {s.validation} leaves no pool of the {len(examples)} rows in "
            f"{source.path}; give less"
        )
    drawn = stream(s.seed, "validation").permutation(len(labelled))[:n_validation]
    aside = {labelled[i] for i in drawn.tolist()}
    pool = [e for i, e in enumerate(examples) if i not in aside]
    return pool, [examples[i] for i in sorted(aside)]


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


def known_strategy(name: str) -> str:
    """`name`, if it is a strategy."""
    if name not in STRATEGIES:
        raise BadInput(f"select.strategy {name!r} is unknown; known: {', '.join(STRATEGIES)}")
    return name


def open_model(model: Artifact, live: Live) -> "lm.LocalModel":
    """A model artifact, ready to score or to write."""
    name, revision = model_and_revision(model)
    return lm.load(name, device=live.device, revision=revision)


def read_pool(pool: Artifact) -> list[Example]:
    """The pool's examples in the order of the file."""
    return read_rows(pool.path / "pool.parquet", Example)


def read_validation(pool: Artifact) -> list[Example]:
    """The examples set aside for early stopping."""
    return read_rows(pool.path / "validation.parquet", Example)


def answer_kind(pool: Artifact) -> AnswerKind:
    """The kind of answer of the pool's task."""
    kind: AnswerKind = json.loads((pool.path / "task.json").read_text())["answer_kind"]
    return kind
