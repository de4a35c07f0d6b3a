"""The store: named by how it was made, never half done, safe for two at once."""

import errno
import multiprocessing
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


def write(out, settings, live, source=None, *others):
    log = live["log"]
    log.write_text(log.read_text() + "made " if log.exists() else "made ")
    time.sleep(live.get("seconds", 0))
    if live.get("breaks"):
        raise live["breaks"]
    (out / "text").write_text(settings.text + "".join(i.fingerprint for i in others))
    return Count(n=1)


WRITE = stage(version=1)(write)


def made(log):
    return log.read_text().count("made") if log.exists() else 0


@pytest.fixture
def live(tmp_path):
    return {"log": tmp_path / "log"}


def test_what_exists_is_not_made_again(tmp_path, live):
    store = Store(tmp_path / "runs")
    first = store.make(WRITE, Settings(), live)
    assert store.make(WRITE, Settings(), live) == first
    assert made(live["log"]) == 1
    assert first.read_stats(Count).n == 1


def test_settings_inputs_and_version_name_an_artifact_and_live_things_do_not(tmp_path, live):
    store = Store(tmp_path / "runs")
    one = store.make(WRITE, Settings(), live)
    other_text = store.make(WRITE, Settings(text="y"), live)
    child = store.make(WRITE, Settings(), live, one)
    newer = store.make(stage(version=2)(write), Settings(), live)
    again = store.make(WRITE, Settings(), live | {"seconds": 0.01})
    assert len({a.fingerprint for a in (one, other_text, child, newer)}) == 4
    assert again == one
    assert set(find_ancestors(child)) == {child.path.name, one.path.name}


def test_a_manifest_has_inputs_by_the_names_of_the_stage_s_parameters(tmp_path, live):
    store = Store(tmp_path / "runs")
    first, second = (store.make(WRITE, Settings(text=t), live) for t in "ab")
    made = store.make(WRITE, Settings(), live, first, second, first)
    assert made.get_input("source") == first
    assert made.get_inputs("others") == (second, first)
    assert made.get_inputs("nothing") == first.get_inputs("source") == ()
    assert made.read_settings(Settings) == Settings()
    with pytest.raises(InputError, match="has 2 inputs 'others'"):
        made.get_input("others")


def test_the_name_of_an_input_is_a_part_of_the_fingerprint(tmp_path, live):
    store = Store(tmp_path / "runs")
    one = store.make(WRITE, Settings(), live)
    made = [store.make(WRITE, Settings(), live, *given) for given in ([one], [None, one])]
    assert made[0].fingerprint != made[1].fingerprint


def test_a_manifest_of_another_version_is_refused_with_what_to_do(tmp_path, live):
    made = Store(tmp_path / "runs").make(WRITE, Settings(), live)
    (made.path / MANIFEST).write_text('{"stage": "write"}')
    with pytest.raises(InputError, match="not a manifest of this version of bridgekd"):
        made.read_stats(Count)


def test_a_stage_that_breaks_leaves_no_artifact_and_is_made_anew(tmp_path, live):
    store = Store(tmp_path / "runs")
    with pytest.raises(ZeroDivisionError):
        store.make(WRITE, Settings(), live | {"breaks": ZeroDivisionError()})
    assert not list((tmp_path / "runs").glob(f"*/{MANIFEST}"))
    assert store.make(WRITE, Settings(), live).done


def go_on(out, settings, live):
    left = out / "unfinished" / "n"
    n = int(left.read_text()) + 1 if left.exists() else 1
    left.write_text(str(n))
    (out / f"stray-{n}").write_text("")
    if n < 3:
        raise ZeroDivisionError
    return Count(n=n)


def test_what_a_stage_left_unfinished_waits_for_the_next_try_and_nothing_else_does(tmp_path):
    store, resumed = Store(tmp_path / "runs"), stage(version=1)(go_on)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            store.make(resumed, Settings(), None)
    made = store.make(resumed, Settings(), None)
    assert made.read_stats(Count).n == 3
    assert sorted(p.name for p in made.path.iterdir()) == [MANIFEST, "stray-3"]


@pytest.mark.parametrize(
    ("code", "advice"),
    [(errno.ENOSPC, "The disk is full"), (errno.EROFS, "The disk is read-only")],
)
def test_a_disk_that_refuses_is_one_sentence(tmp_path, live, code, advice):
    store = Store(tmp_path / "runs")
    with pytest.raises(InputError, match=rf"Cannot write to .*{advice}.*same command again"):
        store.make(WRITE, Settings(), live | {"breaks": OSError(code, "no")})


def test_a_store_below_a_file_is_refused(tmp_path):
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
    assert made(log) == 1


def test_planning_makes_nothing_and_knows_what_is_there(tmp_path, live):
    there = Store(tmp_path / "runs").make(WRITE, Settings(), live)
    plan = PlanStore(tmp_path / "runs")
    first = plan.make(WRITE, Settings(), live)
    then = plan.make(WRITE, Settings(text="y"), live, first)
    assert (first, then.done) == (there, False)
    assert made(live["log"]) == 1


def test_a_moved_file_keeps_its_name_and_a_changed_one_does_not(tmp_path):
    (tmp_path / "a.jsonl").write_text("1")
    (tmp_path / "b.jsonl").write_text("1")
    a, b = (resolve_data(f"{name}.jsonl", tmp_path).fingerprint for name in "ab")
    (tmp_path / "b.jsonl").write_text("2")
    assert a == b != resolve_data("b.jsonl", tmp_path).fingerprint


@pytest.mark.parametrize("where", ["./nowhere", "model-that-is-not-there", "a/b/c"])
def test_a_model_that_is_not_there_is_named(tmp_path, where):
    with pytest.raises(InputError, match=r"no such model folder.*give a folder or a Hub id"):
        resolve_model(where, tmp_path, None)


def test_a_folder_without_a_model_is_named(tmp_path):
    (tmp_path / "m").mkdir()
    with pytest.raises(InputError, match=r"holds no model.*config\.json"):
        resolve_model("m", tmp_path, None)


def test_a_hub_model_is_named_by_id_and_revision(tmp_path):
    model = resolve_model("Qwen/Qwen2.5-0.5B", tmp_path, "v2")
    assert model == Artifact("hub", "hub:Qwen/Qwen2.5-0.5B@v2", model.path)
