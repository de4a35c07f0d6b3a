"""A run whose strategy, difficulty measure and answer type are files beside its recipe."""

import pytest

import bridgekd

STRATEGY = """
import numpy as np
from bridgekd.selection.ranking import rank_rest, sort_by_score
from bridgekd.selection.strategy import Strategy
from bridgekd.variants import NoOptions

def easiest(pool, n_selected, options, seed):
    picks = sort_by_score(-pool.difficulty, np.arange(len(pool)))[:n_selected]
    return rank_rest(pool, picks, -pool.difficulty[picks], -pool.difficulty)

STRATEGY = Strategy(
    name="easiest", title="Easiest", summary="The easiest.", options=NoOptions,
    rank=easiest, needs_difficulty=True, is_nested=True,
)
"""
MEASURE = """
from bridgekd.selection.measure import DifficultyMeasure
from bridgekd.variants import NoOptions

MEASURE = DifficultyMeasure(
    name="least_confident", title="Least confident", summary="Least confident.",
    options=NoOptions, score_tokens=lambda logits: 1 - logits.softmax(-1).amax(-1),
)
"""
GRADER = """
from dataclasses import replace
from bridgekd.grading.graders.text import GRADER as TEXT

GRADER = replace(TEXT, name="first_word", match=lambda a, g, *_: a.split()[0] == g.split()[0])
"""
OVERRIDES = (
    "select.strategy={file: strategy.py}",
    "select.difficulty={file: measure.py}",
    "data.answer_type={file: grader.py}",
)


@pytest.fixture
def with_files(tiny):
    for name, code in {"strategy": STRATEGY, "measure": MEASURE, "grader": GRADER}.items():
        (tiny.parent / f"{name}.py").write_text(code)
    return tiny


def test_recipe_with_variants_in_files_runs(with_files):
    done = bridgekd.run(with_files, overrides=OVERRIDES)
    assert "Selection: easiest" in done.report.read_text()
    plan = bridgekd.plan(with_files, overrides=OVERRIDES)
    assert all(artifact.done for artifact in plan.stages)


def test_changed_file_repeats_the_stages_that_use_it(with_files):
    bridgekd.run(with_files, overrides=OVERRIDES)
    (with_files.parent / "strategy.py").write_text(STRATEGY + "# another comment\n")
    to_do = {a.stage for a in bridgekd.plan(with_files, overrides=OVERRIDES).stages if not a.done}
    assert {"select_questions", "query_teacher", "train_assistant"} <= to_do
    assert not {"load_pool", "warm_up", "score_pool"} & to_do
