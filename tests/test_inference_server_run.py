"""A recipe with the assistant on a server: full runs, kills, and errors."""

import json
import multiprocessing
import os
import re
import shlex
import signal
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

import bridgekd
from bridgekd.comparison import parse_comparison
from bridgekd.errors import InputError, ServerUnavailableError
from bridgekd.inference_server.open_server import get_served_name
from bridgekd.io.artifact_store import Store
from bridgekd.io.load_recipe import load_recipe
from bridgekd.io.row_files import read_rows, write_rows
from bridgekd.io.sources import resolve_model
from bridgekd.plans.plan import plan_comparison
from bridgekd.recipe import AssistantServerOptions, LoraOptions, TrainOptions
from bridgekd.records import Example, Message, Rationale, Score, TargetSpan, TrainingSequence
from bridgekd.runs.run import build_run_context
from bridgekd.sandbox.world import generate_examples
from bridgekd.stages.annotate import (
    AnnotateSettings,
    AnnotateStats,
    annotate,
    build_annotate_settings,
)
from bridgekd.stages.check_rationales import build_check_settings
from bridgekd.stages.score_pool import build_score_pool_settings, build_uncertainty_settings
from fake_inference_server import serving_model
from faulty_teacher import run_teacher_server

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["bridgekd.lm.remote_tokenizer", "bridgekd.inference_server.open_server"]
)
ANNOTATE = AnnotateSettings(
    filter="all",
    confidence=None,
    n_samples=0,
    max_new_tokens=8,
    seed=0,
    backend="server",
)
N_POOL = 24
LONG = ANNOTATE.model_copy(update={"max_new_tokens": 256})
SERVED = [
    "assistant.generation_backend=server",
    "assistant.scoring_backend=server",
    "select.strategy=hardest",
]


def make_options(url, **options):
    return AssistantServerOptions(
        base_url=url, **({"max_attempts": 2, "max_concurrent_requests": 4} | options)
    )


def rows_of(recipe, stage, kind, name):
    (folder,) = (recipe.parent / "runs").glob(f"{stage}-*")
    return read_rows(folder / f"{name}.parquet", kind)


def run_and_serve(recipe, overrides, served):
    """Run a recipe; when it stops, serve the model that it needs and run it again."""
    while True:
        try:
            return bridgekd.run(recipe, overrides=overrides)
        except ServerUnavailableError as exc:
            found = re.search(r"serve (\S+) there under the name (\S+) and", str(exc))
            folder, name = found.groups()
            assert Path(folder).is_dir() and name != served.names[-1]
            served.start(folder, name)


class Served:
    """One address where the model is replaced, as a user would do it."""

    def __init__(self, stack):
        self.stack, self.names, self.port = stack, [], 0

    def start(self, folder, name):
        self.names.append(name)
        self.stack.close()
        http = self.stack.enter_context(serving_model(folder, name, port=self.port))
        self.port = http.server_address[1]


def test_a_run_stops_for_each_model_and_ends_with_the_rows_of_one_in_process(tiny, tmp_path):
    """The scores, texts and predictions are those of the same models in process."""
    with ExitStack() as stack:
        served = Served(stack)
        served.start(tiny.parent / "model", "something-else")
        url = f"assistant.server={{base_url: 'http://127.0.0.1:{served.port}/v1', max_attempts: 2}}"
        done = run_and_serve(tiny, [*SERVED, url], served)
    there = {p.name: p for p in (tiny.parent / "runs").iterdir()}
    here = tiny.with_name("here.yaml")
    here.write_text(tiny.read_text() + "store: here\n")
    plain = bridgekd.run(here, overrides=["select.strategy=hardest", "name=tiny"])
    stages = [name.partition("-")[0] for name in served.names[1:]]
    assert stages == ["warm_up", "train_assistant", "model", "warm_up", "train_assistant"]
    arms = ("assistant_base", "assistant_warm", "assistant", "bridge")
    assert {a: done.metrics.arms[a].accuracy for a in arms} == {
        a: plain.metrics.arms[a].accuracy for a in arms
    }
    for stage, kind, name in (
        ("annotate", Rationale, "rationales"), ("score_pool", Score, "scores"),
    ):  # fmt: skip
        (other,) = (tiny.parent / "here").glob(f"{stage}-*")
        assert other.name not in there  # the results of a server have their own name
        own, others = rows_of(tiny, stage, kind, name), read_rows(other / f"{name}.parquet", kind)
        if kind is Score:
            losses = [s.difficulty for s in others]
            assert [s.difficulty for s in own] == pytest.approx(losses, abs=1e-4)
        else:
            assert own == others


@pytest.fixture
def pool(world_files, tmp_path):
    """A pool of N_POOL questions, as load_pool writes it."""
    from bridgekd.io.artifact_store import Artifact

    folder = tmp_path / "pool"
    folder.mkdir()
    examples = [Example(e.id, e.question, e.answer) for e in generate_examples(N_POOL, 0)]
    write_rows(folder / "pool.parquet", Example, examples)
    (folder / "task.json").write_text(json.dumps({"answer_type": {"name": "text"}, "labels": []}))
    return Artifact("load_pool", "pool", folder)


@pytest.fixture
def model(world_files):
    return resolve_model("model", world_files, None)


def run_annotate(store, pool, model, options, *, progress=None, settings=ANNOTATE):
    """Return the rationales and stats of the annotate stage in its own store."""
    recipe = load_recipe(store.parent / "any.yaml")
    ctx = replace(build_run_context(recipe, store.parent), server=options, device="cpu")
    if progress is not None:
        ctx = replace(ctx, progress=progress)
    done = Store(store).make(annotate, settings, ctx, pool, model)
    return read_rows(done.path / "rationales.parquet", Rationale), done.read_stats(AnnotateStats)


@pytest.fixture
def any_recipe(tmp_path):
    (tmp_path / "any.yaml").write_text(
        "data: {train: a, test: b}\nteacher: {model: large}\nbudget: {queries: 5}\n"
        "assistant: {model: model}\nstudent: {model: model}\n"
    )


def annotate_in_process(pool, model, tmp_path):
    return run_annotate(
        tmp_path / "plain", pool, model, None,
        settings=ANNOTATE.model_copy(update={"backend": "transformers"}),
    )[0]  # fmt: skip


def annotate_and_die(store, pool, model, url):
    def die(what, done, total):
        if 0 < done < total:
            os.kill(os.getpid(), signal.SIGKILL)

    run_annotate(store, pool, model, make_options(url), progress=die)


def test_a_killed_annotate_resumes_and_ends_with_the_same_rows(pool, model, tmp_path, any_recipe):
    store, expected = tmp_path / "store", annotate_in_process(pool, model, tmp_path)
    with serving_model(model.path, get_served_name(model)) as http:
        for _ in range(2):
            arguments = (store, pool, model, http.base_url)
            process = PROCESSES.Process(target=annotate_and_die, args=arguments)
            process.start()
            process.join()
            assert process.exitcode == -signal.SIGKILL
        rows, stats = run_annotate(store, pool, model, make_options(http.base_url))
        n_requests = len(http.bodies)
    assert rows == expected and stats.prompt_format == "tokens"
    # Three starts, each with a probe. A kill loses at most the open and the unsaved requests.
    assert N_POOL + 3 <= n_requests <= N_POOL + 3 + 2 * 2 * 4


def test_a_server_that_dies_in_the_middle_stops_the_stage_which_then_resumes(
    pool, model, tmp_path, any_recipe
):
    store, name = tmp_path / "store", get_served_name(model)
    with (
        serving_model(model.path, name, dies_after=13) as http,
        pytest.raises(
            ServerUnavailableError, match=r"stopped answering: .*Run the same command again"
        ),
    ):
        run_annotate(store, pool, model, make_options(http.base_url))
    with serving_model(model.path, name) as http:
        rows, _ = run_annotate(store, pool, model, make_options(http.base_url))
        assert len(http.bodies) == 1 + 12
    assert rows == annotate_in_process(pool, model, tmp_path)


def test_a_command_serves_the_merged_adapter_and_is_started_again_after_it_died(
    pool, model, tmp_path, any_recipe, monkeypatch
):
    from bridgekd import lm

    rows = [TrainingSequence("a", (Message("user", "What is 1 + 1?"),), (TargetSpan("Answer: 2"),))]
    train = TrainOptions(learning_rate=0.05, batch_size=1, n_evaluations=1)
    lm.fine_tune(
        lm.TrainingJob(
            model.path,
            rows,
            tmp_path / "adapter",
            train,
            n_updates=8,
            seed=0,
            device="cpu",
            lora=LoraOptions(r=4),
        )
    )
    adapter = resolve_model("adapter", tmp_path, None)
    program = Path(__file__).with_name("fake_inference_server.py")
    words = [sys.executable, str(program), "{model}", "{port}"]
    options = AssistantServerOptions(
        command=shlex.join(words), max_attempts=2, max_concurrent_requests=2
    )
    monkeypatch.setenv("DIES_AFTER", "9")
    with pytest.raises(
        ServerUnavailableError, match=r"it ended with code 9; its last lines .*Loading"
    ):
        run_annotate(tmp_path / "store", pool, adapter, options)
    monkeypatch.delenv("DIES_AFTER")
    found, _ = run_annotate(tmp_path / "store", pool, adapter, options)
    assert found == annotate_in_process(pool, adapter, tmp_path)
    assert found != annotate_in_process(pool, model, tmp_path)


def test_a_server_with_chat_completions_only_uses_its_own_template(
    pool, model, tmp_path, any_recipe
):
    with run_teacher_server(wrong_rate=0.0, models=(get_served_name(model),)) as teacher:
        options = make_options(teacher.base_url)
        rows, stats = run_annotate(tmp_path / "store", pool, model, options, settings=LONG)
    assert stats.prompt_format == "chat" and stats.correct_fraction == 1.0
    assert len(rows) == N_POOL and all(r.kept for r in rows)


def test_rate_limited_and_dropped_requests_are_sent_again(pool, model, tmp_path, any_recipe):
    from faulty_teacher import Faults

    faults = Faults(rate_limit=0.1, error=0.1, drop=0.1, retry_after_s=0.01)
    with run_teacher_server(
        wrong_rate=0.0, models=(get_served_name(model),), faults=faults
    ) as teacher:
        options = make_options(teacher.base_url, max_attempts=12)
        rows, stats = run_annotate(tmp_path / "store", pool, model, options, settings=LONG)
    assert stats.correct_fraction == 1.0 and len(rows) == N_POOL


def test_the_server_generates_samples_too(pool, model, tmp_path, any_recipe):
    settings = ANNOTATE.model_copy(update={"filter": "self_consistent", "n_samples": 2})
    with serving_model(model.path, get_served_name(model)) as http:
        options = make_options(http.base_url)
        rows, _ = run_annotate(tmp_path / "store", pool, model, options, settings=settings)
        seeds = {body.get("seed") for body in http.bodies}
    assert len(seeds) == 1 + 2 * N_POOL  # greedy ones have none
    assert all(r.confidence is not None for r in rows)


def folders(task, *overrides):
    recipe = load_recipe(task / "task.yaml", overrides)
    return {
        a.path.name
        for a in plan_comparison(recipe, task, parse_comparison(recipe, task), task / "runs").stages
    }


def test_the_backend_type_is_in_the_fingerprint_and_its_address_is_not(task):
    def served(server, *more):
        return folders(
            task, "assistant.generation_backend=server", f"assistant.server={server}", *more
        )

    one = served("{base_url: 'http://127.0.0.1:8000/v1'}")
    assert one == served(
        "{command: 'vllm serve {model} --port {port}', max_concurrent_requests: 3}"
    )
    changed = {name.rpartition("-")[0] for name in one - folders(task)}
    assert {"annotate", "predict", "train_student"} <= changed
    assert not {"score_pool", "train_assistant", "query_teacher"} & changed


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (
            ["assistant.generation_backend=server"],
            "generation_backend: server needs assistant.server",
        ),
        (["assistant.scoring_backend=server"], "scoring_backend: server needs assistant.server"),
        (["@", "select.difficulty=entropy"], "entropy needs .* every token for number answers"),
        (["@"], "strategy bridge_greedy needs embeddings, .*the strategy hardest or random"),
        (["@", "select.strategy=random", "assistant.server.comand=x"], "Did you mean 'command'"),
    ],
)
def test_what_a_server_cannot_do_is_refused_at_load_time(task, overrides, complaint):
    at = [
        "assistant.scoring_backend=server",
        "assistant.server={base_url: 'http://127.0.0.1:1/v1'}",
    ]
    chosen = [*(at if overrides[0] == "@" else overrides[:1]), *overrides[1:]]
    with pytest.raises(InputError, match=complaint):
        bridgekd.plan(task / "task.yaml", overrides=chosen)


def test_planning_needs_no_server_and_shows_where_data_is_sent(task):
    at = [
        "assistant.generation_backend=server",
        "assistant.server={base_url: 'http://gpu-1:8000/v1'}",
    ]
    plan = bridgekd.plan(task / "task.yaml", overrides=at)
    assert (plan.uses_server, plan.server_host) == (True, "gpu-1")
    near = [at[0], "assistant.server={base_url: 'http://localhost:8000/v1'}"]
    assert bridgekd.plan(task / "task.yaml", overrides=near).server_host == ""
    assert not bridgekd.plan(task / "task.yaml").uses_server


def test_nothing_is_sent_to_another_machine_without_consent(tiny):
    at = [
        "assistant.generation_backend=server",
        "assistant.server={base_url: 'http://gpu-1:8000/v1'}",
    ]
    with pytest.raises(InputError, match="not confirmed"):
        bridgekd.run(tiny, overrides=at)
    assert not (tiny.parent / "runs").exists()


@pytest.mark.parametrize(
    ("server", "complaint"),
    [
        ("{command: 'no-such-program {model} {port}'}", "no program 'no-such-program'"),
        ("{base_url: 'http://localhost:1/v1', api_key_env: NO_SUCH_KEY}", "assistant.server.api_k"),
    ],
)
def test_a_missing_program_or_key_is_reported_before_a_purchase(tiny, teacher, server, complaint):
    overrides = ["assistant.generation_backend=server", f"assistant.server={server}"]
    with pytest.raises(InputError, match=complaint):
        bridgekd.run(tiny, overrides=overrides)
    assert teacher.calls.total() == 0


def test_the_settings_of_every_stage_that_asks_the_assistant_say_who_answers(task):
    at = "assistant.server={base_url: 'http://127.0.0.1:1/v1'}"
    recipe = load_recipe(task / "task.yaml", [*SERVED, at, "annotate.filter=confident"])
    annotated = build_annotate_settings(recipe)
    assert (annotated.backend, annotated.scoring) == ("server", "server")
    assert build_score_pool_settings(recipe, task).scoring == "server"
    assert build_check_settings(recipe, "confident").scoring == "server"
    assert build_uncertainty_settings(recipe, 5).scoring == "server"
    assert build_check_settings(recipe).scoring == "transformers"  # the assistant is not used


def test_the_recipe_for_vllm_plans(task):
    """The files of a small task replace the user's."""
    recipe = Path(__file__).parents[1] / "recipes" / "vllm.yaml"
    (task / "vllm.yaml").write_text(recipe.read_text())
    plan = bridgekd.plan(
        task / "vllm.yaml", overrides=["student.instruction_data=null", "budget.queries=5"]
    )
    assert plan.uses_server and plan.train_cost.n_queries == 5 and not plan.server_host
    assert "vllm" not in sys.modules
