"""`plan --advise` for real and in small: a pilot is bought once, after asking, and measured on what
no model saw.
"""

import json
import shutil
from collections import Counter

import pytest

import bridgekd
from bridgekd import api
from bridgekd.cli import main
from bridgekd.edges.rows import read_rows
from bridgekd.ledger.history import held_microusd
from bridgekd.records import Completion, Example, Rationale
from bridgekd.sandbox.teacher_server import serve
from bridgekd.sandbox.world import generate
from bridgekd.settings import WarmUp
from bridgekd.stages.training import warmed_on
from conftest import TINY_RECIPE, write_jsonl
from test_comparing import QUICK

ASKED = 8  # of a budget of 16
SETS = [*QUICK, "budget.queries=16", "advise.share=0.5", "advise.measure=30"]
SETS += ["evaluate.teacher_queries=0", "student.train.updates=null", "student.train.epochs=0.2"]


@pytest.fixture(scope="module")
def home(world_files, tmp_path_factory):
    """The sandbox's data, of which a fourth is enough to measure on."""
    folder = tmp_path_factory.mktemp("advising") / "tiny"
    shutil.copytree(world_files, folder)
    rows = [
        {k: getattr(e, k) for k in ("id", "question", "answer", "domain")} for e in generate(140, 5)
    ]
    copies = [row | {"id": f"copy-{k}"} for k, row in enumerate(rows[:10])]
    write_jsonl(folder / "train.jsonl", rows[:-10] + copies)
    return folder


def in_a_folder(home, folder, teacher):
    shutil.copytree(home, folder)
    (folder / "tiny.yaml").write_text(TINY_RECIPE % teacher.base_url)
    return folder / "tiny.yaml"


@pytest.fixture
def small(home, teacher, tmp_path):
    """The path of a recipe that nothing was done with."""
    return in_a_folder(home, tmp_path / "tiny", teacher)


@pytest.fixture(scope="module")
def piloted(home, tmp_path_factory):
    """(recipe, teacher, advice) of a pilot that is over."""
    with serve(wrong_rate=0.0) as teacher:
        recipe = in_a_folder(home, tmp_path_factory.mktemp("piloted") / "tiny", teacher)
        yield recipe, teacher, api.advise(recipe, overrides=SETS)


def made(recipe, stage):
    return sorted((recipe.parent / "runs").glob(f"{stage}-*[!l]"))


def test_a_pilot_buys_its_share_and_tells_of_every_arm(piloted):
    recipe, teacher, advised = piloted
    told = advised.told
    assert teacher.calls.total() == told["n_asked"] == told["n_kept"] == ASKED
    assert (told["budget"], told["n_pool"], told["n_measured"]) == (16, 130, 30)
    assert set(told["arms"]) == {"tutored", "direct", "answers_only", "instructed", "base"}
    assert told["verdict"] in ("assistant", "no assistant", "cannot tell")
    sizes = [(p["role"], p["size"]) for p in told["pilot"] if p["size"]]
    assert sorted(sizes) == sorted(
        [("answers_only", 100), ("tutored", 100), ("tutored", 25), ("tutored", 100)]
        + [(role, m) for role in ("direct", "apprentice") for m in (2, 4, 8)]
    )
    assert held_microusd(recipe.parent / "ledger.db") > 0


def test_the_bill_of_a_pilot_is_the_one_that_was_planned(piloted):
    recipe, _, advised = piloted
    (purchase,) = advised.plan.purchases
    assert (purchase.limits.queries, purchase.chosen) == (ASKED, True)
    new = purchase.forecast.new
    assert new.floor <= held_microusd(recipe.parent / "ledger.db") <= new.ceiling


def test_the_same_command_again_makes_no_call_and_trains_nothing(piloted):
    recipe, teacher, advised = piloted
    calls, told, plans = teacher.calls.total(), [], []
    again = api.advise(
        recipe, overrides=SETS, progress=lambda *w: told.append(w), show=plans.append
    )
    assert (again.told, teacher.calls.total(), told) == (advised.told, calls, [])
    assert plans[0].purchases == () and all(a.done for a in plans[0].stages)


def test_what_is_measured_on_was_seen_by_no_model_and_is_not_the_test_set(piloted):
    recipe, _, _ = piloted
    (aside,) = made(recipe, "set_aside")
    measured, rest = (
        {e.id for e in read_rows(aside / name, Example)}
        for name in ("test.parquet", "pool.parquet")
    )
    (bought,) = made(recipe, "query_teacher")
    asked = {c.id for c in read_rows(bought / "completions.parquet", Completion)}
    assert len(measured) == 30 and not measured & (rest | asked)
    assert not made(recipe, "load_test")
    for stage in ("annotate", "thin"):
        for folder in made(recipe, stage):
            assert not measured & {
                r.id for r in read_rows(folder / "rationales.parquet", Rationale)
            }
    (pool,) = made(recipe, "load_pool")
    assert not measured & {e.id for e in read_rows(pool / "validation.parquet", Example)}
    (warm,) = made(recipe, "warm_up")
    how = WarmUp.model_validate(json.loads((warm / "manifest.json").read_text())["settings"])
    warmed = {e.id for e in warmed_on(read_rows(pool / "pool.parquet", Example), how)}
    assert len(warmed) == 13 and not measured & warmed


def test_what_is_measured_on_has_no_copy_that_a_model_learns_from(piloted):
    (aside,) = made(piloted[0], "set_aside")
    (pool,) = made(piloted[0], "load_pool")
    every = [e.question for e in read_rows(pool / "pool.parquet", Example)]
    every += [e.question for e in read_rows(pool / "validation.parquet", Example)]
    times = Counter(every)
    assert max(times.values()) == 2
    assert {times[e.question] for e in read_rows(aside / "test.parquet", Example)} == {1}


def test_every_student_of_a_pilot_gets_the_updates_of_a_run(piloted):
    folders = made(piloted[0], "train_student") + made(piloted[0], "train_on_answers")
    updates = {json.loads((f / "manifest.json").read_text())["stats"]["n_updates"] for f in folders}
    assert len(folders) > 4 and len(updates) == 1


def test_direct_asks_the_pilot_s_questions_first_and_does_not_pay_for_them_again(piloted):
    recipe, teacher, _ = piloted
    copy = recipe.parent.with_name("copy")
    shutil.copytree(recipe.parent, copy)
    bridgekd.run(copy / "tiny.yaml", overrides=SETS, methods=["direct"])
    assert teacher.calls.total() == 16 and set(teacher.calls.values()) == {1}


def test_a_pilot_that_was_stopped_goes_on_to_the_same_advice(piloted, small, teacher):
    def stop(what, done, total):
        if what == "train assistant":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        api.advise(small, overrides=SETS, progress=stop)
    store = small.parent / "runs"
    journal = json.loads((store / "tiny-pilot.json").read_text())
    assert journal["state"] == "interrupted"
    assert api.standing(journal, store).purchases == ()  # what was bought is not bought again
    advised = api.advise(small, overrides=SETS)
    assert (advised.told, teacher.calls.total()) == (piloted[2].told, ASKED)
    assert json.loads((store / "tiny-pilot.json").read_text())["state"] == "done"


def test_without_consent_a_pilot_buys_nothing(small, teacher, capsys, monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", "key")
    sets = [f"--set={s}" for s in (*SETS, "teacher.api_key_env=TEACHER_KEY")]
    assert main(["plan", str(small), "--advise", *sets]) == 2
    printed = " ".join("".join(capsys.readouterr()).split())
    assert f"up to {ASKED} answers from 127.0.0.1" in printed and "sure bounds" in printed
    assert "nothing was sent and nothing was spent" in printed
    assert teacher.calls.total() == 0
    assert not (small.parent / "runs").exists() and not (small.parent / "ledger.db").exists()


def test_the_command_says_what_it_costs_and_then_the_verdict(piloted, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    sets = [f"--set={s}" for s in SETS]
    assert main(["plan", str(piloted[0]), "--advise", "--yes", *sets]) == 0
    text = capsys.readouterr().out
    assert "The pilot is there already." in text
    assert "Student, through an assistant" in text and "95 % interval" in text
    assert any(w in text for w in ("pays off here", "does not pay off here", "cannot tell"))
    assert main(["status", "tiny-pilot", "--store", str(piloted[0].parent / "runs")]) == 0


@pytest.mark.parametrize(
    ("sets", "complaint"),
    [
        (["advise.share=0.1"], "a pilot of 2 questions cannot teach a model"),
        (["data.validation=60"], "to measure a pilot on, fewer than 30"),
        (["advise.grid=[0.5, 0.25]"], "from small to large, the last one 1"),
    ],
)
def test_a_pilot_that_could_tell_nothing_is_refused_before_it_is_paid(
    small, teacher, capsys, sets, complaint
):
    more = [f"--set={s}" for s in (*SETS, *sets)]
    assert main(["plan", str(small), "--advise", *more]) == 2
    assert complaint in " ".join(capsys.readouterr().err.split())
    assert teacher.calls.total() == 0


def test_a_pilot_of_which_nothing_is_kept_says_so(small, capsys):
    with serve(lambda question, seed: "Answer: nothing") as mute:
        more = [f"--set={s}" for s in (*SETS, f"teacher.base_url={mute.base_url}")]
        assert main(["plan", str(small), "--advise", *more]) == 2
    assert "0 rationales of the pilot were kept" in " ".join(capsys.readouterr().err.split())


def test_advice_is_about_all_arms_at_the_recipe_s_budget(small, capsys):
    assert main(["plan", str(small), "--advise", "--arms", "direct"]) == 2
    assert "leave out --arms" in capsys.readouterr().err


def test_advice_keys_redo_no_report(task):
    one, other = (
        api.plan(task / "task.yaml", overrides=[f"advise.share={share}"]) for share in (0.2, 0.4)
    )
    assert [a.path.name for a in one.stages] == [a.path.name for a in other.stages]
