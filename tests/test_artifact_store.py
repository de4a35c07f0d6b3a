"""Artifacts are named by how they were made, complete or not there, and safe for two processes."""

import errno
import multiprocessing
import shutil
import stat
import time

import pytest

from bridgekd.errors import InputError
from bridgekd.io.artifact_store import (
    MANIFEST,
    Artifact,
    PlanStore,
    Stats,
    Store,
    find_ancestors,
    stage,
)
from bridgekd.io.sources import resolve_data, resolve_model
from bridgekd.recipe import FrozenModel


class Settings(FrozenModel):
    text: str = "x"


class Count(Stats):
    n: int


def write(output_dir, settings, ctx, source=None, *others):
    log = ctx["log"]
    log.write_text(log.read_text() + "made " if log.exists() else "made ")
    time.sleep(ctx.get("seconds", 0))
    if ctx.get("error"):
        raise ctx["error"]
    (output_dir / "text").write_text(settings.text + "".join(i.fingerprint for i in others))
    return Count(n=1)


WRITE = stage(version=1)(write)


def count_made(log):
    return log.read_text().count("made") if log.exists() else 0


@pytest.fixture
def ctx(tmp_path):
    return {"log": tmp_path / "log"}


def test_existing_artifact_is_not_made_again(tmp_path, ctx):
    store = Store(tmp_path / "runs")
    first = store.make(WRITE, Settings(), ctx)
    assert store.make(WRITE, Settings(), ctx) == first
    assert count_made(ctx["log"]) == 1
    assert first.read_stats(Count).n == 1


def test_fingerprint_has_settings_inputs_and_version_but_not_run_context(tmp_path, ctx):
    store = Store(tmp_path / "runs")
    one = store.make(WRITE, Settings(), ctx)
    other_text = store.make(WRITE, Settings(text="y"), ctx)
    child = store.make(WRITE, Settings(), ctx, one)
    newer = store.make(stage(version=2)(write), Settings(), ctx)
    again = store.make(WRITE, Settings(), ctx | {"seconds": 0.01})
    assert len({a.fingerprint for a in (one, other_text, child, newer)}) == 4
    assert again == one
    assert set(find_ancestors(child)) == {child.path.name, one.path.name}


def test_manifest_has_inputs_by_parameter_names(tmp_path, ctx):
    store = Store(tmp_path / "runs")
    first, second = (store.make(WRITE, Settings(text=t), ctx) for t in "ab")
    made = store.make(WRITE, Settings(), ctx, first, second, first)
    assert made.get_input("source") == first
    assert made.get_inputs("others") == (second, first)
    assert made.get_inputs("nothing") == first.get_inputs("source") == ()
    assert made.read_settings(Settings) == Settings()
    with pytest.raises(InputError, match="has 2 inputs 'others'"):
        made.get_input("others")


def test_name_of_input_is_part_of_fingerprint(tmp_path, ctx):
    store = Store(tmp_path / "runs")
    one = store.make(WRITE, Settings(), ctx)
    made = [store.make(WRITE, Settings(), ctx, *given) for given in ([one], [None, one])]
    assert made[0].fingerprint != made[1].fingerprint


def test_manifest_of_another_version_is_refused(tmp_path, ctx):
    made = Store(tmp_path / "runs").make(WRITE, Settings(), ctx)
    (made.path / MANIFEST).write_text('{"stage": "write"}')
    with pytest.raises(InputError, match="damaged, missing or of another version"):
        made.read_stats(Count)


def test_failed_stage_leaves_no_artifact_and_runs_again(tmp_path, ctx):
    store = Store(tmp_path / "runs")
    with pytest.raises(ZeroDivisionError):
        store.make(WRITE, Settings(), ctx | {"error": ZeroDivisionError()})
    assert not list((tmp_path / "runs").glob(f"*/{MANIFEST}"))
    assert store.make(WRITE, Settings(), ctx).done


def resume(output_dir, settings, ctx):
    saved = output_dir / "unfinished" / "n"
    n = int(saved.read_text()) + 1 if saved.exists() else 1
    saved.write_text(str(n))
    (output_dir / f"stray-{n}").write_text("")
    if n < 3:
        raise ZeroDivisionError
    return Count(n=n)


def test_only_saved_progress_of_failed_stage_is_kept(tmp_path):
    store, resumed = Store(tmp_path / "runs"), stage(version=1)(resume)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            store.make(resumed, Settings(), None)
    made = store.make(resumed, Settings(), None)
    assert made.read_stats(Count).n == 3
    assert sorted(p.name for p in made.path.iterdir()) == [MANIFEST, "stray-3"]


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, "The disk is full"),
        (errno.EROFS, "The disk is read-only"),
        (errno.ENOENT, "does not exist, or was removed"),
    ],
)
def test_disk_error_has_next_step(tmp_path, ctx, code, advice):
    store = Store(tmp_path / "runs")
    with pytest.raises(InputError, match=rf"Cannot write to .*{advice}.*same command again"):
        store.make(WRITE, Settings(), ctx | {"error": OSError(code, "no")})


def test_store_below_file_is_refused(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(InputError, match="Cannot write to"):
        Store(tmp_path / "runs")


def make_slowly(folder, log):
    Store(folder).make(WRITE, Settings(), {"log": log, "seconds": 0.5})


def test_two_processes_make_one_artifact_once(tmp_path):
    folder, log = tmp_path / "runs", tmp_path / "log"
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=make_slowly, args=(folder, log)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [p.exitcode for p in both] == [0, 0]
    assert count_made(log) == 1


def test_plan_store_makes_nothing_and_finds_existing_artifacts(tmp_path, ctx):
    existing = Store(tmp_path / "runs").make(WRITE, Settings(), ctx)
    plan = PlanStore(tmp_path / "runs")
    first = plan.make(WRITE, Settings(), ctx)
    then = plan.make(WRITE, Settings(text="y"), ctx, first)
    assert (first, then.done) == (existing, False)
    assert count_made(ctx["log"]) == 1


def test_moved_file_keeps_fingerprint_and_changed_file_does_not(tmp_path):
    (tmp_path / "a.jsonl").write_text("1")
    (tmp_path / "b.jsonl").write_text("1")
    a, b = (resolve_data(f"{name}.jsonl", tmp_path).fingerprint for name in "ab")
    (tmp_path / "b.jsonl").write_text("2")
    assert a == b != resolve_data("b.jsonl", tmp_path).fingerprint


@pytest.mark.parametrize("where", ["./nowhere", "model-that-is-not-there", "a/b/c"])
def test_missing_model_is_named(tmp_path, where):
    with pytest.raises(InputError, match=r"There is no model folder.*Give a folder or a Hub id"):
        resolve_model(where, tmp_path, None)


def test_folder_without_model_is_named(tmp_path):
    (tmp_path / "m").mkdir()
    with pytest.raises(InputError, match=r"is not a model folder.*config\.json"):
        resolve_model("m", tmp_path, None)


def test_fingerprint_of_hub_model_is_id_and_revision(tmp_path):
    model = resolve_model("Qwen/Qwen2.5-0.5B", tmp_path, "v2")
    assert model == Artifact("hub", "hub:Qwen/Qwen2.5-0.5B@v2", model.path)


def test_store_is_for_its_owner_only(tmp_path, ctx):
    (tmp_path / "open").mkdir()
    for folder in (tmp_path / "runs", tmp_path / "open"):
        artifact = Store(folder).make(WRITE, Settings(), ctx)
        assert stat.S_IMODE(artifact.path.stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "runs").stat().st_mode) == 0o700


def test_store_that_is_removed_during_a_stage_is_one_sentence(tmp_path, ctx):
    def lose(output_dir, settings, ctx):
        shutil.rmtree(tmp_path / "runs")
        return Count(n=1)

    with pytest.raises(InputError, match=r"or was removed.* the same command again"):
        Store(tmp_path / "runs").make(stage(version=1)(lose), Settings(), ctx)


def test_artifact_without_its_manifest_is_refused_before_the_work(tmp_path, ctx):
    store = Store(tmp_path / "runs")
    artifact = store.make(WRITE, Settings(), ctx)
    (artifact.path / MANIFEST).unlink()
    with pytest.raises(InputError, match=rf"{artifact.path} is damaged.* Remove this folder"):
        store.make(WRITE, Settings(), ctx)
    assert count_made(ctx["log"]) == 1
