"""Starting and stopping a server: nothing survives the stage, and a failure has one message."""

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from bridgekd.errors import InputError, ServerUnavailableError
from bridgekd.inference_server.process import fill_placeholders, find_program, run_server

# A server with a child, as vLLM has them. It writes both process ids into a file.
SERVER = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open(sys.argv[1] + ".new", "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(600)
"""
OWNER = """
import sys, time
from pathlib import Path
from bridgekd.inference_server.process import run_server
script, pid_file = sys.argv[1], Path(sys.argv[2])
with run_server([sys.executable, "-c", script, str(pid_file)], log=pid_file.with_suffix(".log"),
             folder=pid_file.parent, is_up=pid_file.is_file, timeout_s=60):
    print("up", flush=True)
    time.sleep(600)
"""


def alive(pids):
    return [pid for pid in pids if _runs(pid)]


def _runs(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it may end during the check
        return False


def end_within(pids, seconds):
    end = time.monotonic() + seconds
    while alive(pids) and time.monotonic() < end:
        time.sleep(0.05)
    return not alive(pids)


def run_script(script, folder, *, up_when=lambda: True, timeout_s=30.0, secret=""):
    """Run a Python script as the server; its argument is the path of a file to write."""
    pid_file = folder / "pids"
    return run_server(
        [sys.executable, "-c", script, str(pid_file)],
        log=folder / "server.log",
        folder=folder,
        is_up=up_when,
        timeout_s=timeout_s,
        secret=secret,
    )


@pytest.mark.parametrize("ends", ["quietly", "by an error"])
def test_a_server_and_its_children_end_with_the_block(tmp_path, ends):
    pid_file = tmp_path / "pids"
    with ExitStack() as opened:
        get_exit_reason = opened.enter_context(
            run_script(SERVER, tmp_path, up_when=pid_file.is_file)
        )
        pids = [int(pid) for pid in pid_file.read_text().split()]
        assert len(alive(pids)) == 2 and get_exit_reason() is None
        if ends == "by an error":
            opened.enter_context(pytest.raises(KeyboardInterrupt))
            raise KeyboardInterrupt
    assert end_within(pids, 5)


def test_a_server_and_its_children_end_with_a_killed_bridgekd(tmp_path):
    pid_file = tmp_path / "pids"
    command = [sys.executable, "-c", OWNER, SERVER, str(pid_file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout.readline() == "up\n"
        pids = [int(pid) for pid in pid_file.read_text().split()]
        assert len(alive(pids)) == 2
        os.kill(owner.pid, signal.SIGKILL)
    assert end_within(pids, 15)


def test_an_early_exit_is_reported_with_the_last_lines(tmp_path):
    script = "print('loading'); print('CUDA out of memory'); raise SystemExit(7)"
    with (
        pytest.raises(
            ServerUnavailableError, match=r"ended with code 7; its last lines .*CUDA out of memory"
        ),
        run_script(script, tmp_path, up_when=lambda: False),
    ):
        pass


def test_a_key_that_the_server_prints_reaches_no_message(tmp_path):
    with (
        pytest.raises(ServerUnavailableError, match=r"args: \[key\]$") as caught,
        run_script(
            "print('args: sk-canary-1'); raise SystemExit(1)", tmp_path,
            up_when=lambda: False, secret="sk-canary-1",
        ),
    ):  # fmt: skip
        pass
    assert "canary" not in str(caught.value)


def test_silence_is_reported_with_the_last_lines(tmp_path):
    script = "import time; print('compiling', flush=True); time.sleep(600)"
    log = tmp_path / "server.log"
    with (
        pytest.raises(
            ServerUnavailableError,
            match=r"within 1 s; its last lines .*compiling. .* raise .*start",
        ),
        run_script(script, tmp_path, up_when=lambda: log.read_text() and False, timeout_s=1),
    ):
        pass


def test_a_killed_server_reports_its_exit_code(tmp_path):
    pid_file = tmp_path / "pids"
    with run_script(SERVER, tmp_path, up_when=pid_file.is_file) as get_exit_reason:
        server, child = (int(pid) for pid in pid_file.read_text().split())
        os.kill(server, signal.SIGKILL)
        assert end_within([child], 5)  # so no process holds the device
        end = time.monotonic() + 5
        while get_exit_reason() is None and time.monotonic() < end:
            time.sleep(0.05)
        assert "ended with code 137" in get_exit_reason()


def test_a_program_that_is_not_there_is_bad_input(tmp_path):
    for name in ("vlllm", "./serve.sh", "/nowhere/vllm"):
        with pytest.raises(InputError, match=f"no program '{name}' here"):
            find_program([name, "serve"], tmp_path)
    script = tmp_path / "serve.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    assert find_program(["./serve.sh"], tmp_path) == str(Path(script).resolve())


def test_a_command_s_parts_are_filled_in_and_other_braces_stay():
    command = "vllm serve '{model}' --port {port} --x '{\"a\": 1}'"
    assert fill_placeholders(command, {"model": "/a b/m", "port": "81", "name": "n"}) == [
        "vllm", "serve", "/a b/m", "--port", "81", "--x", '{"a": 1}',
    ]  # fmt: skip
