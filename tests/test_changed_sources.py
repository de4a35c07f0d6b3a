"""A source that changes during a run stops it: no artifact has the fingerprint of another file."""

import pytest

from bridgekd.errors import InputError
from bridgekd.io.artifact_store import Artifact, Stats, Store, stage
from bridgekd.io.load_recipe import load_recipe
from bridgekd.io.read_pool import read_few_shot
from bridgekd.io.sources import resolve_data, resolve_model
from bridgekd.recipe import FrozenModel
from bridgekd.runs.run import build_run_context, open_run
from bridgekd.stages.load_data import LoadTestSettings, load_test
from bridgekd.stages.model_backend import load_artifact_model
from bridgekd.stages.train import build_instruct_settings, instruct_student
from conftest import write_jsonl

ROW = {"question": "What is 1 + 1?", "answer": "2", "id": "new", "domain": "d"}
INSTRUCTION = {"instruction": "Say it.", "output": "It."}
SOURCES = {
    "train.jsonl": lambda run: run.load_pool(),
    "test.jsonl": lambda run: run.load_test(),
    "instruct.jsonl": lambda run: run.instruct_student(),
    "model/config.json": lambda run: run.instruct_student(),
}


class Settings(FrozenModel):
    pass


def open_tiny(path):
    recipe = load_recipe(path, [])
    return open_run(recipe, path.parent, build_run_context(recipe, path.parent), [recipe.method])


def list_artifacts(run):
    return {path.name for path in run.store.folder.glob("*-*") if path.suffix != ".partial"}


@pytest.mark.parametrize("remove", [False, True])
@pytest.mark.parametrize("name", SOURCES)
def test_source_that_changed_since_the_start_makes_no_artifact(tiny, name, remove):
    run, file = open_tiny(tiny), tiny.parent / name
    if name == "test.jsonl":
        run.load_pool()
    before, content = list_artifacts(run), file.read_bytes()
    if remove:
        file.unlink()
    else:
        file.write_bytes(content + b"\n")
    with pytest.raises(InputError, match="was changed or removed during the run"):
        SOURCES[name](run)
    assert list_artifacts(run) == before
    file.write_bytes(content)
    if name in ("train.jsonl", "test.jsonl"):
        assert SOURCES[name](open_tiny(tiny)).done


def read_test(run, folder):
    settings, pool = LoadTestSettings(columns=run.recipe.data.columns), run.load_pool()
    load_test.function(folder, settings, run.ctx, pool, edit(run.test_data, ROW))


def read_instructions(run, folder):
    source, settings = edit(run.instructions, INSTRUCTION), build_instruct_settings(run.recipe)
    instruct_student.function(folder, settings, run.ctx, run.student, instructions=source)


def read_shots(run, folder):
    file = write_jsonl(folder / "shots.jsonl", [ROW | {"rationale": "r"}])
    read_few_shot([edit(resolve_data(str(file), folder), ROW | {"rationale": "other"})])


def read_model(run, folder):
    with open(run.student.path / "chat_template.jinja", "a") as file:
        file.write("\n")
    load_artifact_model(run.student, run.ctx)


def edit(source, row):
    write_jsonl(source.path, [row])
    return source


@pytest.mark.parametrize("read", [read_test, read_instructions, read_shots, read_model])
def test_reader_hashes_again_what_it_has_read(tiny, tmp_path, read):
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(InputError, match="was changed or removed during the run"):
        read(open_tiny(tiny), folder)
    assert not list(folder.glob("*.parquet")) and not list(folder.glob("*.safetensors"))


def test_every_source_is_hashed_before_a_stage_of_your_own(tmp_path):
    def count(output_dir, settings, ctx, source, others):
        raise AssertionError("the stage must not start")

    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    file = write_jsonl(tmp_path / "x.jsonl", [ROW])
    sources = resolve_data(str(file), tmp_path), resolve_model(str(model), tmp_path, None)
    hub = Artifact("hub", "hub:a/b", tmp_path / "a/b")
    (model / "config.json").write_text("{} ")
    with pytest.raises(InputError, match="model was changed"):
        Store(tmp_path / "runs").make(
            stage(version=1)(count), Settings(), None, sources[0], [hub, sources[1]]
        )


def test_unchanged_source_makes_an_artifact(tmp_path):
    def count(output_dir, settings, ctx, source):
        return Stats()

    source = resolve_data(str(write_jsonl(tmp_path / "x.jsonl", [ROW])), tmp_path)
    assert Store(tmp_path / "runs").make(stage(version=1)(count), Settings(), None, source).done
