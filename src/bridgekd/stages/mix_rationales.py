"""The domain mixture of the student's rows."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bridgekd.io.artifact_store import Artifact, stage
from bridgekd.io.read_pool import read_pool
from bridgekd.io.row_files import read_column, write_rows
from bridgekd.recipe import FrozenModel, Recipe
from bridgekd.records import Rationale, Score
from bridgekd.selection.check_recipe import check_mixture
from bridgekd.selection.mixture import GroupEvidence, compute_shares, resample_rows
from bridgekd.selection.mixtures import MIXTURES
from bridgekd.stages.group_evidence import read_evidence, resolve_mixture
from bridgekd.stages.run_context import RunContext
from bridgekd.stages.stats import KeptStats
from bridgekd.stages.training_examples import read_rationales
from bridgekd.variants import VariantSettings


class MixRationalesSettings(FrozenModel):
    mixture: VariantSettings
    seed: int


def build_mix_settings(recipe: Recipe, folder: Path) -> MixRationalesSettings | None:
    """Return what the mixture of the student's rows depends on; None if it leaves them as is."""
    mixture = resolve_mixture(recipe.student.mixture, folder)
    if mixture is None:
        return None
    options = MIXTURES.parse_options(mixture)
    check_mixture(recipe, MIXTURES.load(mixture), options, "student.mixture")
    return MixRationalesSettings(mixture=mixture, seed=recipe.seed)


@stage(version=1, title="Mixture of the student's rows")
def mix_rationales(
    output_dir: Path,
    settings: MixRationalesSettings,
    ctx: RunContext,
    pool: Artifact,
    rationales: Sequence[Artifact],
    *,
    samples: Artifact | None = None,
    losses: Sequence[Artifact] = (),
) -> KeptStats:
    """Write as many kept rationales as there are, with each domain's share by the mixture.

    The rationales of a small domain repeat. Dropped rationales stay. `samples` are of the student.
    `losses` may be of some questions only.
    """
    examples = read_pool(pool)
    groups = np.unique([example.domain for example in examples], return_inverse=True)[1]
    group_of = dict(zip((example.id for example in examples), groups.tolist(), strict=True))
    known = [read_column(scores.path / "scores.parquet", Score, "id") for scores in losses[:1]]
    evidence = GroupEvidence(
        np.array([group_of[id] for id in known[0]]) if known else groups,
        progress=0.0,
        **read_evidence(pool, samples, losses),
    )
    options = MIXTURES.parse_options(settings.mixture)
    shares = compute_shares(MIXTURES.load(settings.mixture), evidence, options)
    rows = read_rationales(rationales)
    kept = [row for row in rows if row.kept]
    kept_groups = np.array([group_of[row.id] for row in kept], dtype=np.int64)
    drawn = resample_rows(kept_groups, shares, settings.seed)
    dropped = [row for row in rows if not row.kept]
    write_rows(output_dir / "rationales.parquet", Rationale, [*(kept[i] for i in drawn), *dropped])
    return KeptStats(n_kept=len(drawn))
