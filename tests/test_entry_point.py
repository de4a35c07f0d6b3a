"""The installed command: signals, and outputs that do not take everything."""

import io
import os
import signal
import sys
import threading
import time
from contextlib import chdir

import pytest

from bridgekd.cli.entry_point import INTERRUPTED, interrupt_on_sigterm, run_program
from bridgekd.cli.output_stream import open_output_streams
from bridgekd.errors import InputError
from bridgekd.io.disk import translate_disk_errors
from bridgekd.ledger.spend import sum_spend
from faulty_teacher import Faults, run_teacher_server
from test_live_transport import pool, purchase, words

MAIN = "bridgekd.cli.main"


class SignalAtImport:
    """Sends this process a signal when the command line is imported."""

    def __init__(self, number):
        self.number = number

    def find_spec(self, name, path=None, target=None):
        if name == MAIN:
            signal.raise_signal(self.number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_during_imports_is_one_sentence(monkeypatch, capsys, number, code):
    monkeypatch.delitem(sys.modules, MAIN, raising=False)
    monkeypatch.setattr(sys, "meta_path", [SignalAtImport(number), *sys.meta_path])
    handler = signal.getsignal(signal.SIGTERM)
    assert run_program(["list", "methods"]) == code
    assert capsys.readouterr().err.strip() == INTERRUPTED
    assert signal.getsignal(signal.SIGTERM) == handler


def terminate_after(server, n):
    while server.served.total() < n:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_while_buying_waits_for_open_requests(tmp_path):
    with (
        run_teacher_server(words, faults=Faults(latency_s=0.05)) as server,
        interrupt_on_sigterm() as received,
    ):
        threading.Thread(target=terminate_after, args=(server, 4)).start()
        with pytest.raises(KeyboardInterrupt):
            purchase(tmp_path / "l.db", server, pool(100), max_concurrent_requests=2)
        n_served = server.served.total()
    counts = {row.state: row.n_attempts for row in sum_spend(tmp_path / "l.db")}
    assert received == [signal.SIGTERM]
    assert counts.pop("answered") == n_served and 4 <= n_served < 100
    assert set(counts) <= {"failed"}  # reserved ahead and not sent


COMMANDS = (
    ["--help"],
    ["--version"],
    ["list", "methods"],
    ["list", "graders", "--json"],
    ["plan", "task.yaml"],
    ["plan", "task.yaml", "--json"],
    ["init", "new.yaml"],
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_full_output_is_one_sentence(task, monkeypatch, capsys, command):
    with open("/dev/full", "w") as full, chdir(task):
        monkeypatch.setattr(sys, "stdout", full)
        assert run_program(command) == 2
    text = capsys.readouterr().err
    assert "Cannot write to standard output: No space left on device" in text
    assert len(text.splitlines()) == 1


def test_full_output_is_not_the_disk_of_the_store(tmp_path, monkeypatch, capsys):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with (
            open_output_streams(),
            pytest.raises(InputError, match="standard output"),
            translate_disk_errors(tmp_path),
        ):
            print("a note of a stage", flush=True)


@pytest.mark.parametrize("command", [["plan", "missing.yaml"], ["plan", "task.yaml"]])
def test_error_that_nobody_can_read_keeps_its_exit_code(task, monkeypatch, command):
    with open("/dev/full", "w") as full, open("/dev/full", "w") as errors, chdir(task):
        monkeypatch.setattr(sys, "stdout", full)
        monkeypatch.setattr(sys, "stderr", errors)
        assert run_program(command) == 2


def test_closed_output_is_no_error(task, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with chdir(task):
        assert run_program(["plan", "task.yaml"]) == 0


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_output_takes_characters_that_its_encoding_does_not_have(task, monkeypatch, encoding):
    recipe = (task / "task.yaml").read_text().replace("large", "großes-模型")
    (task / "task.yaml").write_text(recipe, encoding="utf-8")
    buffers = io.BytesIO(), io.BytesIO()
    for name, buffer in zip(("stdout", "stderr"), buffers, strict=True):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(buffer, encoding))
    with chdir(task):
        assert run_program(["plan", "task.yaml"]) == 0
        assert run_program(["plan", "нет.yaml"]) == 2
    assert b"es-\\u6a21\\u578b" in buffers[0].getvalue()
    assert b"\\u043d\\u0435\\u0442.yaml" in buffers[1].getvalue()
