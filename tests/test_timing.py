import json
import struct

import pytest

from bridgekd import api
from bridgekd.cli import main
from bridgekd.core.durations import Duration, Work, added, by_rates, by_rule
from bridgekd.edges import machine
from bridgekd.edges.machine import peak_of, size_of
from bridgekd.edges.sources import model_source
from bridgekd.edges.store import Artifact
from bridgekd.terminal import long


def test_a_measured_rate_gives_the_time_and_its_ends_leave_room():
    told = by_rates(600, [10.0, 30.0, 20.0])
    assert told.middle == 30.0
    assert told.low == pytest.approx(600 / 30 / 1.5) and told.high == pytest.approx(600 / 10 * 1.5)


def test_the_rule_counts_operations_and_its_ends_lie_far_apart():
    told = by_rule(Work("training", 1000, (100, 100)), n_parameters=10**6, peak=1e12)
    assert told.high == pytest.approx(6 * 10**6 * 10**5 / (0.05 * 1e12))
    assert told.low < told.middle < told.high and told.high / told.low > 10
    assert by_rule(Work("scoring", 1000, (100, 100)), 10**6, 1e12).high < told.high


def test_durations_are_added_end_by_end():
    assert added([Duration(1, 2, 3), Duration(10, 20, 30)]) == Duration(11, 22, 33)
    assert [long(s) for s in (0.2, 600, 7200)] == ["1 s", "10 min", "2.0 h"]


def test_a_model_s_size_is_read_off_its_files_or_its_name_or_not_at_all(tmp_path):
    header = json.dumps({"__metadata__": {}, "w": {"shape": [3, 5]}, "b": {"shape": [7]}}).encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    folder = Artifact("model", "model:1", tmp_path)
    assert (size_of(folder).n, size_of(folder).by) == (22, "its files")
    for name, n in (
        ("Qwen/Qwen2.5-7B-Instruct", 7e9),
        ("a/SmolLM2-360M", 36e7),
        ("a/b-560m", 56e7),
    ):
        size = size_of(model_source(name, tmp_path, None))
        assert (size.n, size.by) == (n, "its name")
    assert size_of(model_source("owner/phi-4-mini", tmp_path, None)) is None
    (tmp_path / "adapter_config.json").write_text("{}")
    assert size_of(folder) is None
    (tmp_path / "adapter_config.json").unlink()
    (tmp_path / "x.safetensors").write_bytes(b"broken")
    assert size_of(folder) is None


def test_a_cpu_has_a_peak_and_an_unknown_device_none(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    one = peak_of("cpu")
    assert one.device == "1 CPU core" and 1e9 < one.operations < 1e12
    assert peak_of("mps") is None


@pytest.mark.parametrize(
    ("name", "tera"), [("NVIDIA H100 80GB HBM3", 989), ("NVIDIA A10G", None), ("", 0)]
)
def test_a_gpu_that_nobody_knows_is_not_taken_for_the_cpu(monkeypatch, name, tera):
    monkeypatch.setattr(machine, "_gpu", lambda: name)
    found = peak_of("auto")
    if tera is None:
        assert found is None
    else:
        assert found.operations == tera * 1e12 if tera else "CPU" in found.device


def test_plan_says_hours_by_the_rule_and_unknown_where_no_size_can_be_read(task):
    by_name = ["assistant.model=owner/model-7B", "student.model=owner/tiny-1M", "device=cpu"]
    hours = api.plan(task / "task.yaml", overrides=by_name).hours
    assert hours.n_by_rule and not hours.n_measured and not hours.unknown
    assert hours.by_kind.keys() == {"training", "scoring", "generation"}
    assert any("7 G for model-7B (by its name)" in size for size in hours.sizes)
    nameless = [*by_name, "assistant.model=owner/model"]
    hours = api.plan(task / "task.yaml", overrides=nameless).hours
    assert hours.unknown == ("the size of model is not known here",)


def test_what_the_store_measured_is_what_a_plan_goes_by(runs, capsys):
    recipe = str(runs.parent / "tiny.yaml")
    assert main(["plan", recipe, "--set", "seed=77", "--set", "student.lora={r: 4}"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "Time on this machine: about" in told and "earlier ones in the store" in told
    assert "rule of thumb" not in told
    finished = ["--set", "teacher.api_key_env=TEACHER_KEY", "--set", "student.lora={r: 4}"]
    assert main(["plan", recipe, "--arms", "bridge,direct", *finished]) == 0
    assert "Time on this machine" not in capsys.readouterr().out  # all of it is there
