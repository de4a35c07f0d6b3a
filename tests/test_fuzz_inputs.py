"""A sample of the inputs of tools/fuzz_inputs.py, and that its checks can fail."""

import gc
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import fuzz_inputs
from fuzz_inputs import run_seeds

from bridgekd.io import raw_rows

N_INPUTS, N_PARTS = 300, 6  # a part is a test of its own, so that none is long


@pytest.mark.parametrize("part", range(N_PARTS))
def test_a_sample_of_damaged_inputs_is_read_right_or_refused(part):
    counts, findings = run_seeds(range(part, N_INPUTS, N_PARTS))
    assert findings == []
    assert sum(counts.values()) == N_INPUTS // N_PARTS
    assert {end for _, end in counts} == {"accepted", "refused"}


def find_first(what, seeds):
    _, findings = run_seeds(seeds)
    return [finding for finding in findings if finding.what == what]


def test_a_lost_row_is_a_misreading(monkeypatch):
    rows = raw_rows.read_jsonl
    monkeypatch.setattr(raw_rows, "read_jsonl", lambda path: list(rows(path))[1:])
    assert find_first("misread", range(8))


def test_an_exception_of_a_library_is_a_traceback(monkeypatch):
    def read(path):
        raise KeyError("row")
        yield

    monkeypatch.setattr(raw_rows, "read_jsonl", read)
    first = find_first("traceback", range(8))[0]
    assert "KeyError" in first.detail


def test_more_than_the_limit_of_processor_time_is_a_hang(monkeypatch):
    def read(path):
        while True:
            pass
        yield

    monkeypatch.setattr(raw_rows, "read_jsonl", read)
    monkeypatch.setattr(fuzz_inputs, "LIMIT_S", 0.02)
    assert find_first("hang", range(8))


def test_a_hang_is_found_where_libraries_watch_the_garbage_collector(monkeypatch):
    def wait(phase, info):
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass

    def read(path):
        while True:
            _ = [[] for _ in range(10_000)]
        yield

    monkeypatch.setattr(raw_rows, "read_jsonl", read)
    monkeypatch.setattr(fuzz_inputs, "LIMIT_S", 0.02)
    gc.callbacks.append(wait)
    try:
        assert find_first("hang", range(2))
    finally:
        gc.callbacks.remove(wait)
