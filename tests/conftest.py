"""Fakes that many tests share: a small world on disk, and stages that only count."""

import gc
import json
import os
import shutil
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch; see bridgekd.lm
settings.register_profile("loaded machine", deadline=None)
settings.load_profile("loaded machine")


def fail_if_skipped(report, nodeid):
    """In CI a skipped test is a failed one: what it checks would go unnoticed."""
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        _, _, reason = report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{nodeid}: {reason}. With CI=true only GPU tests may be skipped."
    return report


def pytest_collection_finish(session):
    """Exempt all modules from garbage collection.

    transformers calls gc.collect() in every training. Half a million objects of imported modules
    made that a quarter of the time of a small run.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    needs_gpu = item.get_closest_marker("gpu") is not None
    return report if needs_gpu else fail_if_skipped(report, item.nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    return fail_if_skipped(report, collector.nodeid)


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def task(tmp_path):
    """A folder with a recipe that plans: real data files, a folder that looks like a model."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    rows = [{"question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(40)]
    write_jsonl(tmp_path / "train.jsonl", rows[:30])
    write_jsonl(tmp_path / "test.jsonl", rows[30:])
    (tmp_path / "task.yaml").write_text(
        "data: {train: train.jsonl, test: test.jsonl, answer_type: number}\n"
        "teacher: {model: large, price: {input: 2.5, output: 10}}\n"
        "budget: {queries: 5, usd: 1}\n"
        "assistant: {model: model}\n"
        "student: {model: model}\n"
    )
    return tmp_path


TINY_RECIPE = """\
data: {train: train.jsonl, test: test.jsonl, columns: {id: id, domain: domain}, validation_size: 10}
teacher:
  provider: sandbox
  model: sandbox-teacher
  base_url: %s
  api_key_env: null
  max_tokens: 256
  price: {input: 2.5, output: 10}
  max_concurrent_requests: 2
budget: {queries: 20%%}
assistant:
  model: model
  warm_up_size: 10%%
  warm_up_train: {updates: 4, n_evaluations: 2, batch_size: 8}
  train: {updates: 4, n_evaluations: 2, batch_size: 8}
  max_new_tokens: 8
student:
  model: model
  instruction_data: instruct.jsonl
  instruction_train: {updates: 4, n_evaluations: 1, batch_size: 8}
  train: {updates: 4, n_evaluations: 2, batch_size: 8}
  max_new_tokens: 8
evaluate: {teacher_queries: 5}
runtime: {assistant_batch_size: 16, student_batch_size: 16}
device: cpu
"""


@pytest.fixture(scope="session")
def world_files(tmp_path_factory):
    """The sandbox's data in small, and an untrained model of the student's shape."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from bridgekd.sandbox.world import generate_examples

    sandbox = files("bridgekd.sandbox")
    student, folder = sandbox / "models" / "student", tmp_path_factory.mktemp("world")
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(student)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder / "model")
    AutoTokenizer.from_pretrained(student).save_pretrained(folder / "model")
    train = generate_examples(70, 0)
    test = generate_examples(20, 1, exclude={e.question for e in train})
    for name, rows in (("train", train), ("test", test)):
        columns = ("id", "question", "answer", "domain")
        write_jsonl(folder / f"{name}.jsonl", [{k: getattr(e, k) for k in columns} for e in rows])
    instructions = (sandbox / "instruct.jsonl").read_text().splitlines(keepends=True)
    (folder / "instruct.jsonl").write_text("".join(instructions[:30]))
    return folder


CANARY = "canary-key-0123456789"


@pytest.fixture(scope="session")
def runs(world_files, tmp_path_factory):
    """The store of a finished comparison named tiny: students by LoRA, an assistant trained whole,
    a key that must not be found. Tests only read it.
    """
    import bridgekd
    from faulty_teacher import run_teacher_server

    folder = tmp_path_factory.mktemp("private") / "tiny"
    shutil.copytree(world_files, folder)
    with run_teacher_server(wrong_rate=0.3) as teacher, pytest.MonkeyPatch.context() as environment:
        environment.setenv("TEACHER_KEY", CANARY)
        (folder / "tiny.yaml").write_text(TINY_RECIPE % teacher.base_url)
        bridgekd.run(
            folder / "tiny.yaml",
            overrides=["teacher.api_key_env=TEACHER_KEY", "student.lora={r: 4}"],
            methods=["bridge", "direct"],
            consent=lambda plan: True,
        )
    return folder / "runs"


@pytest.fixture
def teacher():
    """A running sandbox teacher that is never wrong."""
    from faulty_teacher import run_teacher_server

    with run_teacher_server(wrong_rate=0.0) as server:
        yield server


@pytest.fixture
def tiny(world_files, teacher, tmp_path):
    """The path of a recipe that runs in seconds, in a folder of its own."""
    folder = tmp_path / "tiny"
    shutil.copytree(world_files, folder)
    (folder / "tiny.yaml").write_text(TINY_RECIPE % teacher.base_url)
    return folder / "tiny.yaml"
