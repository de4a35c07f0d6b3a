"""The pilot of `plan --advise`: set_aside, thin, advise. Local and free; what it buys goes through
query_teacher as every purchase does.

Their settings stand here and not in settings.py, as no run of a method has them.
"""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from bridgekd import settings as of
from bridgekd.config import Budget, Section
from bridgekd.core.advice import Point, Role, advised, runs_at
from bridgekd.core.draws import stream
from bridgekd.edges.rows import read_rows, write_rows
from bridgekd.edges.store import Artifact, Stats, stage
from bridgekd.errors import BadInput
from bridgekd.records import Example, Pick, Prediction, Rationale
from bridgekd.stages.buying import CheckStats
from bridgekd.stages.live import Live
from bridgekd.stages.pool import answer_kind, n_queries, part_of, read_pool, read_validation
from bridgekd.stages.stats import KeptStats
from bridgekd.stages.training import warmed_on

LARGEST_SHARE = 4  # at most a fourth of the pool is set aside
FEWEST = 30  # questions with which anything can be measured


class SetAside(Section):
    n: int
    warm_up: of.WarmUp | None  # whose questions are not set aside
    smallest: float  # share of the purchase that a model is to be taught by


class Thin(Section):
    share: float
    seed: int | None  # None: the first rows


class Measured(Section):
    """A model of the pilot; `share` is of the answers bought, or of the pool that is left."""

    role: Role
    share: float = 0.0
    tutor: int = -1


class Advise(Section):
    models: tuple[Measured, ...]  # one per prediction artifact, in order
    budget: Budget
    share: float  # of the budget, spent on the pilot
    sure: float


class SetAsideStats(Stats):
    n_pool: int
    n_aside: int
    n_whole: int


class AdviseStats(Stats):
    verdict: str
    p_assistant: float


@stage(version=2, title="Questions set aside")
def set_aside(
    out: Path, s: SetAside, live: Live, pool: Artifact, ranking: Artifact
) -> SetAsideStats:
    """The pool without some questions, and these as what the pilot's models are measured on: the
    last of the random ranking, neither to be asked by the pilot nor known from the warm-up, nor
    standing in the pool twice, so that no model has learnt from a copy.
    """
    examples = read_pool(pool)
    picks = read_rows(ranking.path / "ranking.parquet", Pick)
    n_asked = sum(p.chosen for p in picks)
    if n_asked * s.smallest < 1:
        raise BadInput(
            f"a pilot of {n_asked} questions cannot teach a model by a share of {s.smallest:g} of "
            "them; raise advise.share or the budget"
        )
    known = {p.id for p in picks if p.chosen}
    known |= {e.id for e in (warmed_on(examples, s.warm_up) if s.warm_up is not None else ())}
    known |= {e.id for e in examples if e.answer is None}
    times = Counter(e.question for e in [*examples, *read_validation(pool)])
    known |= {e.id for e in examples if times[e.question] > 1}
    last = [p.id for p in sorted(picks, key=lambda p: -p.rank)]
    free = [id for id in last if id not in known][: min(s.n, len(examples) // LARGEST_SHARE)]
    if len(free) < FEWEST:
        raise BadInput(
            f"the pool of {len(examples)} leaves {len(free)} questions with gold answers to "
            f"measure a pilot on, fewer than {FEWEST}; give more data, or compare the arms"
        )
    aside = set(free)
    write_rows(out / "pool.parquet", Example, [e for e in examples if e.id not in aside])
    write_rows(out / "test.parquet", Example, [e for e in examples if e.id in aside])
    write_rows(out / "validation.parquet", Example, read_validation(pool))
    (out / "task.json").write_text(json.dumps({"answer_kind": answer_kind(pool)}))
    return SetAsideStats(
        n_pool=len(examples) - len(aside), n_aside=len(aside), n_whole=len(examples)
    )


@stage(version=1, title="A share of the rationales")
def thin(out: Path, s: Thin, live: Live, rationales: Artifact) -> KeptStats:
    """A share of the kept rationales: the first, or some drawn at random in their order. BadInput
    where there are fewer than make one, as a larger share might then be the same rows.
    """
    rows = [r for r in read_rows(rationales.path / "rationales.parquet", Rationale) if r.kept]
    if len(rows) * s.share < 1:
        raise BadInput(
            f"{len(rows)} rationales of the pilot were kept, which cannot teach a model by a share "
            f"of {s.share:g} of them; read the `reason` column of {rationales.path}, then raise "
            "advise.share, mend the teacher's prompt or loosen check.keep"
        )
    places = np.arange(len(rows))
    if s.seed is not None:
        places = stream(s.seed, "pilot").permutation(len(rows))
    some = sorted(places[: n_of(s.share, len(rows))].tolist())
    write_rows(out / "rationales.parquet", Rationale, [rows[i] for i in some])
    return KeptStats(n_kept=len(some))


@stage(version=2, title="Advice")
def advise(
    out: Path, s: Advise, live: Live, aside: Artifact, rationales: Artifact, *predictions: Artifact
) -> AdviseStats:
    """advice.json: what every arm would reach at the budget; draws.npy: drawn accuracies, [arms,
    draws] in the order of its `arms`.

    Curves run over the teacher's kept rationales, as those are what is learnt from; the budget is
    taken to give them as often as the pilot did.
    """
    sizes, checked = aside.read_stats(SetAsideStats), rationales.read_stats(CheckStats)
    n_kept = checked.n_kept
    n_asked = n_kept + checked.n_dropped
    budget = n_queries(s.budget.queries, sizes.n_whole)
    if n_asked != part_of(budget, (0.0, s.share)):  # dollars or tokens ended the purchase
        budget = min(budget, math.floor(n_asked / s.share + 0.5))
    points = points_of(s.models, n_kept, sizes.n_pool)
    rows = [read_rows(p.path / "predictions.parquet", Prediction) for p in predictions]
    right = np.array([[r.correct for r in answered] for answered in rows])
    n_to_learn = max(n_kept, math.floor(budget * n_kept / n_asked + 0.5))
    runs = runs_at(points, right, budget=n_to_learn, n_pool=sizes.n_whole)
    found = advised(runs, sure=s.sure)
    shown = [asdict(p) | {"accuracy": float(r.mean())} for p, r in zip(points, right, strict=True)]
    told = {
        "budget": budget,
        "n_pool": sizes.n_whole,
        "n_asked": n_asked,
        "n_kept": n_kept,
        "n_measured": sizes.n_aside,
        "share": s.share,
        "sure": s.sure,
        "pilot": shown,
    }
    (out / "advice.json").write_text(json.dumps(told | asdict(found), indent=1))
    np.save(out / "draws.npy", np.array(list(runs.single.values())))
    return AdviseStats(verdict=found.verdict, p_assistant=round(found.best["tutored"], 4))


def points_of(models: Sequence[Measured], n_kept: int, n_left: int) -> list[Point]:
    """The pilot's models with their sizes in rows."""
    rows = {"direct": n_kept, "apprentice": n_kept, "tutored": n_left, "answers_only": n_left}
    sizes = [n_of(m.share, rows[m.role]) if m.role in rows else 0 for m in models]
    return [Point(m.role, size, m.tutor) for m, size in zip(models, sizes, strict=True)]


def n_of(share: float, n: int) -> int:
    """The whole number nearest to a share of n, at least 1 of any."""
    return min(n, max(1, math.floor(share * n + 0.5)))
