"""Chunks of a rationale that are left out because the assistant is right without them."""

import json
from pathlib import Path

import pytest

from bridgekd.io.artifact_store import RESUME_DIR, Artifact
from bridgekd.io.row_files import read_rows, write_rows
from bridgekd.io.sources import resolve_model
from bridgekd.recipe import ChunkOptions, TeacherOptions
from bridgekd.records import Example, Rationale
from bridgekd.stages.run_context import RunContext
from bridgekd.stages.shorten_rationales import ShortenSettings, shorten_rationales
from tiny_models import write_babbler

# The model writes the answer after the word "box", and nothing after a word that is not in here.
LINE = "the box Answer: Ann"
TEXT = "So Bob gives box yes"
POOL = [Example("right", "?", "Ann"), Example("wrong", "?", "Bob"), Example("unlabeled", "?")]


@pytest.fixture
def shorten(tmp_path):
    """Shorten rationales with these options, and return (texts by id, stats)."""
    for folder in (Path("model"), Path("data"), Path("out") / RESUME_DIR):
        (tmp_path / folder).mkdir(parents=True)
    write_babbler(tmp_path / "model", LINE)
    write_rows(tmp_path / "data" / "pool.parquet", Example, POOL)
    rationales = [Rationale(e.id, TEXT, "ann", "assistant", True) for e in POOL]
    dropped = Rationale("right", "Hm.", "", "assistant", False, "no answer")
    write_rows(tmp_path / "data" / "rationales.parquet", Rationale, [*rationales, dropped])
    task = {"answer_type": {"name": "text"}, "labels": []}
    (tmp_path / "data" / "task.json").write_text(json.dumps(task))
    model = resolve_model(str(tmp_path / "model"), Path(), None)
    data = Artifact("data", "x", tmp_path / "data")
    ctx = RunContext("run", TeacherOptions(model="none"), Path("none.db"))

    def run(**options):
        settings = ShortenSettings(chunks=ChunkOptions(**options), max_new_tokens=8)
        stats = shorten_rationales.function(tmp_path / "out", settings, ctx, data, [data], model)
        return read_rows(tmp_path / "out" / "rationales.parquet", Rationale), stats

    return run


def test_chunk_is_left_out_if_the_answer_stays_right(shorten):
    """Of "Bob", "gives" and "box" only the last one is needed. First and last chunk always stay."""
    rows, stats = shorten(splitter="even", n_chunks=5)
    assert [row.text for row in rows] == ["So box yes", TEXT, "So box yes", "Hm."]
    assert (stats.n_kept, stats.n_chunks, stats.n_skipped) == (3, 15, 4)
    assert [row.kept for row in rows] == [True, True, True, False]


def test_rationale_without_middle_chunk_stays_as_it_is(shorten):
    rows, stats = shorten(splitter="even", n_chunks=2)
    assert {row.text for row in rows if row.kept} == {TEXT}
    assert stats.n_skipped == 0 and stats.generation is None
