"""The user's files as a pool with a validation split, and as a test set."""

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from bridgekd.errors import InputError
from bridgekd.grading.answer_type import load_answer_type
from bridgekd.grading.graders import GRADERS
from bridgekd.io.artifact_store import Artifact, Stats, stage
from bridgekd.io.dataset_reader import iter_examples, read_examples
from bridgekd.io.lazy_rows import LazyRows, collect_rows
from bridgekd.io.read_pool import TASK_FILE, read_answer_type, read_pool, read_validation
from bridgekd.io.row_files import write_rows, write_tables
from bridgekd.recipe import ColumnNames, CountOrPercent, FrozenModel, Recipe, resolve_count
from bridgekd.records import Example
from bridgekd.rng import make_rng
from bridgekd.stages.run_context import RunContext
from bridgekd.variants import VariantSettings


class LoadPoolSettings(FrozenModel):
    columns: ColumnNames
    answer_type: VariantSettings
    unlabeled: bool
    validation_size: CountOrPercent
    seed: int


class LoadPoolStats(Stats):
    n_pool: int
    n_validation: int


class LoadTestSettings(FrozenModel):
    columns: ColumnNames


class LoadTestStats(Stats):
    n_test: int
    n_also_in_train_file: int


def build_load_pool_settings(recipe: Recipe, folder: Path) -> LoadPoolSettings:
    """Return what the pool depends on."""
    data = recipe.data
    return LoadPoolSettings(
        columns=data.columns,
        answer_type=GRADERS.resolve(data.answer_type, folder),
        unlabeled=data.unlabeled,
        validation_size=data.validation_size,
        seed=recipe.seed,
    )


@stage(version=4, title="Pool")
def load_pool(
    output_dir: Path, settings: LoadPoolSettings, ctx: RunContext, source: Artifact
) -> LoadPoolStats:
    """Write the train file as a pool and a validation split, which all arms share."""
    pool, validation = split_validation(source, settings)
    source.check_unchanged()
    write_tables(output_dir / "pool.parquet", Example, pool.iter_tables())
    write_tables(output_dir / "validation.parquet", Example, validation.iter_tables())
    answers = (example.answer for example in chain(pool, validation))
    labels = load_answer_type(settings.answer_type).with_labels(answers).labels
    task = {"answer_type": settings.answer_type.model_dump(mode="json"), "labels": labels}
    (output_dir / TASK_FILE).write_text(json.dumps(task))
    return LoadPoolStats(n_pool=len(pool), n_validation=len(validation))


# A separate stage, so that another test set retrains nothing.
@stage(version=3, title="Test set")
def load_test(
    output_dir: Path, settings: LoadTestSettings, ctx: RunContext, pool: Artifact, source: Artifact
) -> LoadTestStats:
    """Write the test file, and count its questions that are in the train file word for word."""
    test = read_examples(source.path, settings.columns, read_answer_type(pool))
    source.check_unchanged()
    questions = {e.question for e in test}
    train = chain(read_pool(pool), read_validation(pool))
    seen = {e.question for e in train if e.question in questions}
    write_rows(output_dir / "test.parquet", Example, test)
    n_seen = sum(e.question in seen for e in test)
    return LoadTestStats(n_test=len(test), n_also_in_train_file=n_seen)


def split_validation(
    source: Artifact, settings: LoadPoolSettings
) -> tuple[LazyRows[Example], LazyRows[Example]]:
    """Return (pool, validation split) of a train file, each in its order.

    Every example of the validation split has a gold answer. Raises InputError if no pool is left.
    """
    has_answer, answer_type = bytearray(), load_answer_type(settings.answer_type)

    def iter_pool() -> Iterator[Example]:
        for example in iter_examples(
            source.path, settings.columns, answer_type, unlabeled=settings.unlabeled
        ):
            has_answer.append(example.answer is not None)
            yield example

    examples = collect_rows(Example, iter_pool())
    labeled = np.flatnonzero(np.frombuffer(has_answer, dtype=np.uint8))
    n_validation = resolve_count(settings.validation_size, len(labeled))
    if n_validation >= len(examples):
        raise InputError(
            f"data.validation_size of {settings.validation_size} leaves no pool of the "
            f"{len(examples)} rows in {source.path}. Lower it."
        )
    sampled = make_rng(settings.seed, "validation").permutation(len(labeled))[:n_validation]
    in_validation = np.zeros(len(examples), dtype=bool)
    in_validation[labeled[sampled]] = True
    return examples.filter(~in_validation), examples.filter(in_validation)
