"""How hard every question is for the assistant, and where it lies: score_pool, embed_pool."""

from pathlib import Path
from typing import Any, Literal

import numpy as np

from bridgekd import lm
from bridgekd import settings as of
from bridgekd.core.difficulty import n_distinct, vote_entropy
from bridgekd.core.draws import SAMPLING_TEMPERATURE, SEED_STEP
from bridgekd.core.grading import read_answer
from bridgekd.core.prompts import answer_prompt, render_question
from bridgekd.edges.rows import write_rows
from bridgekd.edges.sources import model_and_revision
from bridgekd.edges.store import Artifact, stage
from bridgekd.records import Score
from bridgekd.stages.live import Live
from bridgekd.stages.pool import answer_kind, open_model, read_pool

# The other measures are read off what a model writes; their pass is for the embeddings alone.
IN_ONE_PASS: dict[str, Literal["loss", "entropy", "margin"]] = {
    "loss": "loss",
    "entropy": "entropy",
    "margin": "margin",
}


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
        measure=IN_ONE_PASS.get(s.difficulty, "entropy"),
        max_new_tokens=s.max_new_tokens if s.difficulty in IN_ONE_PASS else 1,
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
