"""Times of a plan: from earlier stages, from `plan --time`, or unknown."""

import random
from statistics import fmean

import pytest

from bridgekd import api
from bridgekd.cli.main import main
from bridgekd.io.artifact_store import Artifact
from bridgekd.ledger.ledger import Ledger
from bridgekd.plans.model_speed import (
    SPEED_FILE,
    ModelSpeed,
    SpeedKey,
    estimate_longest,
    estimate_seconds,
    read_speeds,
    save_speed,
)
from bridgekd.plans.stage_durations import (
    DEFAULT_RATIONALE_TOKENS,
    find_rationale_length,
)
from bridgekd.plans.stage_work import Workload
from bridgekd.recipe import TeacherOptions
from bridgekd.throughput import WorkKind, WorkRate

MODEL = Artifact("model", "model:1", None)


def make_speed(kind, model="model:1", **rates):
    key = SpeedKey(model=model, machine="cpu", kind=kind, options="")
    rates = {"rate": WorkRate()} | rates
    return ModelSpeed(key=key, load_s=1.0, tokens_per_character=0.5, prompt_tokens=10, **rates)


def make_work(kind, n_rows, **more):
    """Rows of a prompt of 50 tokens and a target of 10 with a rationale."""
    more = {"max_new_tokens": 100} | more
    return Workload(
        kind, MODEL, "student", n_rows, prompt_characters=80, target_characters=12,
        has_rationale=True, is_timed=True, is_instruction=False, **more,
    )  # fmt: skip


def read_text(capsys):
    return " ".join(capsys.readouterr().out.split())


def test_plan_without_measured_speeds_says_how_to_measure_them(task, capsys):
    assert main(["plan", str(task / "task.yaml")]) == 0
    text = read_text(capsys)
    assert "Time unknown: training with model, generation with model." in text
    assert "Run `bridgekd plan --time` (about" in text


def test_measured_speeds_are_saved_and_give_the_time_of_every_stage(tiny, capsys):
    assert main(["plan", str(tiny), "--time"]) == 0
    text = read_text(capsys)
    assert "Time on this machine: about" in text and "Not included" not in text
    assert f"A rationale counts as {DEFAULT_RATIONALE_TOKENS} tokens" in text
    store = tiny.parent / "runs"
    assert [path.name for path in store.iterdir()] == [SPEED_FILE]
    estimate = api.plan(tiny).durations
    assert estimate.missing == () and estimate.total > 0
    assert not any(stage.is_measured for stage in estimate.stages.values())
    kinds = {WorkKind.TRAINING, WorkKind.GENERATION, WorkKind.SCORING}
    assert estimate.by_kind.keys() == kinds


def test_only_missing_speeds_are_measured(tiny):
    api.plan(tiny, measure_time=True)
    steps = []
    api.plan(tiny, measure_time=True, progress=lambda *step: steps.append(step))
    assert steps == []
    sets = ["student.lora={r: 4}"]
    api.plan(tiny, overrides=sets, measure_time=True, progress=lambda *step: steps.append(step))
    assert [step[1:] for step in steps] == [(0, 1), (1, 1)]  # training by LoRA


def test_earlier_stages_of_a_store_give_the_time(runs, capsys):
    recipe = str(runs.parent / "tiny.yaml")
    lora = ["--set", "student.lora={r: 4}"]
    assert main(["plan", recipe, "--set", "seed=77", *lora]) == 0
    text = read_text(capsys)
    assert "Time on this machine: about" in text and "plan --time" not in text
    assert "A rationale counts" not in text
    assert main(["plan", recipe, "--arms", "bridge,direct", "--set",
                 "teacher.api_key_env=TEACHER_KEY", *lora]) == 0  # fmt: skip
    assert "Time on this machine" not in read_text(capsys)


def test_training_of_another_kind_is_not_timed_by_an_earlier_one(runs):
    lora = "student.lora={r: 8}"
    estimate = api.plan(runs.parent / "tiny.yaml", overrides=["seed=77", lora]).durations
    assert {work.kind for work in estimate.missing} >= {WorkKind.TRAINING}
    assert all(name.partition("-")[0] != "train_student" for name in estimate.stages)


def test_stages_of_a_server_are_named_as_not_included(task, capsys):
    server = "assistant.server={base_url: 'http://127.0.0.1:9/v1'}"
    sets = ["assistant.generation_backend=server", server]
    assert main(["plan", str(task / "task.yaml"), *(f"--set={s}" for s in sets)]) == 0
    assert "Not included: " in read_text(capsys)
    assert api.plan(task / "task.yaml", overrides=sets).durations.n_untimed > 0


def test_length_of_rationales_is_the_best_known_one(runs, tmp_path):
    guess = TeacherOptions(
        provider="sandbox", model="sandbox-teacher", expected_completion_tokens=(100, 300)
    )
    with Ledger(tmp_path / "ledger.db"):
        pass
    for name in ("none.db", "ledger.db"):
        assert find_rationale_length(guess, tmp_path / name) == (
            200,
            "teacher.expected_completion_tokens",
        )
    unknown = TeacherOptions(model="m", max_tokens=100)
    assert find_rationale_length(unknown, tmp_path / "none.db") == (100, None)
    n_tokens, source = find_rationale_length(guess, runs.parent / "ledger.db")
    assert source == "the answers in the ledger" and 20 < n_tokens < 150


def test_training_time_is_that_of_updates_and_tokens():
    speed = make_speed(WorkKind.TRAINING, rate=WorkRate(per_call_s=0.5, per_token_s=0.01))
    work = make_work(WorkKind.TRAINING, 80, n_updates=10)
    seconds = estimate_seconds(work, speed, rationale_tokens=40)
    assert seconds == pytest.approx(10 * 0.5 + 80 * 100 * 0.01)


def test_generation_time_is_that_of_prompts_steps_and_tokens():
    speed = make_speed(
        WorkKind.GENERATION, rate=WorkRate(per_call_s=0.1, per_token_s=0.001),
        reading=WorkRate(per_token_s=0.0001), batch_size=64,
    )  # fmt: skip
    work = make_work(WorkKind.GENERATION, 128, max_new_tokens=100)
    seconds = estimate_seconds(work, speed, rationale_tokens=80)
    assert seconds == pytest.approx(128 * 50 * 0.0001 + 2 * 100 * 0.1 + 128 * 100 * 0.001)


@pytest.mark.parametrize("batch_size", [8, 64, 256])
def test_batch_waits_for_its_longest_text(batch_size):
    rng = random.Random(0)
    batches = [[rng.lognormvariate(4, 0.4) for _ in range(batch_size)] for _ in range(2000)]
    expected = fmean(map(max, batches)) / fmean(length for batch in batches for length in batch)
    assert estimate_longest(batch_size) == pytest.approx(expected, rel=0.05)


def test_new_speed_replaces_that_of_the_same_key_and_keeps_others(tmp_path):
    old, new = (make_speed(WorkKind.SCORING, rate=WorkRate(per_call_s=s)) for s in (1.0, 2.0))
    other = make_speed(WorkKind.SCORING, model="model:2")
    for speed in (old, other, new):
        save_speed(tmp_path, speed)
    assert read_speeds(tmp_path) == {new.key: new, other.key: other}


def test_broken_speed_file_is_measured_again(tmp_path):
    (tmp_path / SPEED_FILE).write_text("{")
    assert read_speeds(tmp_path) == {}
