"""The contract of every transport, and of the example file in docs/teachers.md."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from bridgekd import api
from bridgekd.cost.budget import Limits
from bridgekd.errors import InputError
from bridgekd.ledger.ledger import Ledger
from bridgekd.ledger.verify import verify
from bridgekd.recipe import TeacherOptions
from bridgekd.teacher.buy_answers import buy_answers, read_api_key
from bridgekd.teacher.transports import TRANSPORTS, prepare_teacher, resolve_teacher
from bridgekd.variants import VariantRef
from conftest import write_jsonl
from faulty_teacher import Faults, run_teacher_server
from test_live_transport import pool, teacher_at, words

DOCS = Path(__file__).parents[2] / "docs" / "teachers.md"
CHILD = """
import os, signal, sys
from bridgekd.recipe import TeacherOptions
from bridgekd.ledger.ledger import Ledger
from bridgekd.teacher.buy_answers import buy_answers
from test_live_transport import pool
from bridgekd.cost.budget import Limits

def die(label, done, total):
    if done == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

with Ledger(sys.argv[1]) as ledger:
    teacher = TeacherOptions.model_validate_json(sys.argv[2])
    buy_answers(pool(12), ledger, teacher=teacher, limits=Limits(), run="r", api_key="none",
    progress=die)
"""


@pytest.fixture(scope="module", params=[*TRANSPORTS.list_names(), "a file"])
def ref(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("transport")
    if request.param == "a file":
        return VariantRef(file=str(write_example(folder)))
    own = {
        "batch": {"poll_s": 0.02},
        "replay": {"recordings": str(write_recordings(folder / "r.jsonl"))},
    }
    return VariantRef.model_validate({"name": request.param, **own.get(request.param, {})})


def write_example(folder):
    (example,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    (folder / "function.py").write_text(example)
    return folder / "function.py"


def write_recordings(path):
    return write_jsonl(path, [{"id": r.id, "text": words("", r.rank)} for r in pool(12)])


@pytest.fixture
def transport(ref):
    return TRANSPORTS.load(TRANSPORTS.resolve(ref))


@pytest.fixture
def server():
    with run_teacher_server(words, faults=Faults(truncate=0.2, refuse=0.1)) as server:
        yield server


@pytest.fixture
def teacher(ref, server):
    return prepare_teacher(teacher_at(server, transport=ref, max_concurrent_requests=2), Path())


def purchase(path, teacher, limits=Limits()):  # noqa: B008
    with Ledger(path) as ledger:
        return buy_answers(
            pool(12), ledger, teacher=teacher, limits=limits, run="r", api_key="none"
        )


def read_attempts(path, columns):
    with closing(sqlite3.connect(path)) as db:
        return db.execute(f"SELECT {columns} FROM attempts").fetchall()


def test_it_has_a_title_and_one_sentence(transport):
    assert transport.title and transport.summary.endswith(".")
    assert "\n" not in transport.summary


def test_it_refuses_an_option_that_it_does_not_have(ref, transport):
    known = list(transport.options.model_fields)
    hint = f"Did you mean '{known[0]}'" if known else "Known: none"
    key = f"{known[0]}x" if known else "answer"
    with pytest.raises(InputError, match=f"unknown option '{key}'. {hint}"):
        TRANSPORTS.resolve(ref.model_copy(update={"options": {key: 1}}))


def test_the_bound_is_never_below_the_cost(tmp_path, teacher):
    assert purchase(tmp_path / "l.db", teacher).stop_reason == "pool"
    costs = read_attempts(tmp_path / "l.db", "cost_microusd, reserve_microusd")
    assert len(costs) == 12 and any(cost for cost, _ in costs)
    assert all(cost <= reserve for cost, reserve in costs)


def test_every_attempt_agrees_with_its_stored_texts(tmp_path, teacher):
    purchase(tmp_path / "l.db", teacher)
    assert verify(tmp_path / "l.db").errors == ()


def test_an_answered_request_is_never_sent_again(tmp_path, teacher, server):
    first = purchase(tmp_path / "l.db", teacher)
    again = purchase(tmp_path / "l.db", teacher)
    assert (first.n_requests_sent, again.n_requests_sent, again.n_reused) == (12, 0, 12)
    assert again.completions == first.completions
    assert max(server.calls.values(), default=0) <= 1


def test_a_budget_ends_it_at_the_same_place_each_time(tmp_path, teacher):
    total = purchase(tmp_path / "all.db", teacher).charged_microusd
    limits = Limits(microusd=total // 2)
    results = [purchase(tmp_path / f"{i}.db", teacher, limits) for i in range(2)]
    assert results[0].completions == results[1].completions
    assert 0 <= results[0].charged_microusd <= total // 2
    assert results[0].stop_reason == "usd"


@pytest.mark.parametrize("n_rows", [1, 6, 11])
def test_a_killed_purchase_ends_with_the_rows_of_an_undisturbed_one(
    tmp_path, teacher, server, n_rows
):
    calm = purchase(tmp_path / "calm.db", teacher)
    server.served.clear()
    path = tmp_path / "l.db"
    arguments = [sys.executable, "-c", CHILD, path, teacher.model_dump_json(), str(n_rows)]
    tests = str(Path(__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": f"{tests}:{os.environ.get('PYTHONPATH', '')}"}
    child = subprocess.run(arguments, check=False, env=environment, cwd=tests)
    assert child.returncode == -signal.SIGKILL
    assert purchase(path, teacher).completions == calm.completions
    answered = [key for key, state in read_attempts(path, "key, state") if state == "answered"]
    assert len(answered) == len(set(answered))
    n_lost = sum(state == "unknown" for (state,) in read_attempts(path, "state"))
    assert server.served.total() <= 12 + n_lost


def test_a_key_is_required_only_if_the_transport_needs_one(transport, teacher, monkeypatch):
    monkeypatch.delenv("SOME_KEY", raising=False)
    teacher = teacher.model_copy(update={"api_key_env": "SOME_KEY"})
    if transport.needs_api_key:
        with pytest.raises(InputError, match="SOME_KEY"):
            read_api_key(teacher)
    else:
        assert read_api_key(teacher) == "none"


def test_it_is_planned_by_its_properties(task, ref, transport):
    override = f"teacher.transport={ref.model_dump_json()}"
    plan = api.plan(task / "task.yaml", overrides=[override], methods=["direct"])
    assert plan.needs_consent == plan.is_sent == transport.sends_to_host
    assert plan.host == (transport.local_source or "api.openai.com")


def test_a_file_is_found_from_the_recipe_s_folder(tmp_path):
    write_example(tmp_path)
    teacher = TeacherOptions(model="m", transport={"file": "function.py", "answer": "5"})
    prepared = prepare_teacher(teacher, tmp_path)
    assert resolve_teacher(prepared).options.answer == "5"
    assert TeacherOptions.model_validate_json(prepared.model_dump_json()) == prepared
