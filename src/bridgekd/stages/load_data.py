"""The user's files as a pool with a validation split, and as a test set."""

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from bridgekd.config import Amount, Fields, Recipe, Section, count_of
from bridgekd.core.draws import stream
from bridgekd.edges.columns import Rows, gathered
from bridgekd.edges.data import examples_in, load_examples
from bridgekd.edges.rows import write_rows, write_tables
from bridgekd.edges.store import Artifact, Stats, stage
from bridgekd.errors import BadInput
from bridgekd.grading.answer_type import load_answer_type
from bridgekd.grading.graders import GRADERS
from bridgekd.io.read_pool import TASK_FILE, read_answer_type, read_pool, read_validation
from bridgekd.records import Example
from bridgekd.stages.live import Live
from bridgekd.variants import VariantSettings


class LoadPoolSettings(Section):
    fields: Fields
    answer_type: VariantSettings
    unlabelled: bool
    validation: Amount
    seed: int


class LoadPoolStats(Stats):
    n_pool: int
    n_validation: int


class LoadTestSettings(Section):
    fields: Fields


class LoadTestStats(Stats):
    n_test: int
    n_also_in_train: int


def build_load_pool_settings(recipe: Recipe, folder: Path) -> LoadPoolSettings:
    """Return what the pool depends on."""
    data = recipe.data
    return LoadPoolSettings(
        fields=data.fields,
        answer_type=GRADERS.resolve(data.answer_type, folder),
        unlabelled=data.unlabelled,
        validation=data.validation,
        seed=recipe.seed,
    )


@stage(version=3, title="Pool")
def load_pool(
    output_dir: Path, settings: LoadPoolSettings, ctx: Live, source: Artifact
) -> LoadPoolStats:
    """The train file as pool and validation split: a seeded draw, so that every arm shares it."""
    pool, validation = split_validation(source, settings)
    write_tables(output_dir / "pool.parquet", Example, pool.groups())
    write_tables(output_dir / "validation.parquet", Example, validation.groups())
    task = {"answer_type": settings.answer_type.model_dump(mode="json")}
    (output_dir / TASK_FILE).write_text(json.dumps(task))
    return LoadPoolStats(n_pool=len(pool), n_validation=len(validation))


# A stage of its own, so that another test set retrains nothing.
@stage(version=2, title="Test set")
def load_test(
    output_dir: Path, settings: LoadTestSettings, ctx: Live, pool: Artifact, source: Artifact
) -> LoadTestStats:
    """The test file, and how many of its questions are in the train file word for word."""
    test = load_examples(source.path, settings.fields, read_answer_type(pool))
    questions = {e.question for e in test}
    train = chain(read_pool(pool), read_validation(pool))
    seen = {e.question for e in train if e.question in questions}
    write_rows(output_dir / "test.parquet", Example, test)
    return LoadTestStats(n_test=len(test), n_also_in_train=sum(e.question in seen for e in test))


def split_validation(
    source: Artifact, settings: LoadPoolSettings
) -> tuple[Rows[Example], Rows[Example]]:
    """Return (pool, validation split) of a train file, each in its order.

    Every example of the validation split has a gold answer. Raises InputError if no pool is left.
    """
    has_answer, answer_type = bytearray(), load_answer_type(settings.answer_type)

    def iter_examples() -> Iterator[Example]:
        for example in examples_in(
            source.path, settings.fields, answer_type, unlabelled=settings.unlabelled
        ):
            has_answer.append(example.answer is not None)
            yield example

    examples = gathered(Example, iter_examples())
    labeled = np.flatnonzero(np.frombuffer(has_answer, dtype=np.uint8))
    n_validation = count_of(settings.validation, len(labeled))
    if n_validation >= len(examples):
        raise BadInput(
            f"data.validation of {settings.validation} leaves no pool of the {len(examples)} rows "
            f"in {source.path}. Lower it."
        )
    sampled = stream(settings.seed, "validation").permutation(len(labeled))[:n_validation]
    in_validation = np.zeros(len(examples), dtype=bool)
    in_validation[labeled[sampled]] = True
    return examples.where(~in_validation), examples.where(in_validation)
