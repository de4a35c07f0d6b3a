"""What this machine could compute at most, without importing torch: for the estimate of a plan."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bridgekd.edges.store import Artifact

# Dense bf16 (or fp16) operations a second, in tera, as NVIDIA states them.
GPUS = {
    "B200": 2250, "H200": 989, "H100": 989, "A100": 312, "L40S": 362, "L4": 121, "A10": 125,
    "V100": 125, "T4": 65, "RTX 4090": 165, "RTX 3090": 71,
}  # fmt: skip
_PER_CYCLE = 32  # float32 operations a core and cycle: two units of eight lanes, multiply and add
_GHZ = 3.0  # where the system does not tell
_SIZE = re.compile(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)\s?([bBmM])(?![A-Za-z0-9])")


@dataclass(frozen=True, slots=True)
class Peak:
    """A device's peak, operations a second, and what it is."""

    operations: float
    device: str


@dataclass(frozen=True, slots=True)
class Size:
    """A model's parameters, and what says so: its file, or its name."""

    n: int
    by: str


def peak_of(device: str) -> Peak | None:
    """The peak of the device that a recipe names; None where nobody knows it."""
    if device == "auto" or device.startswith("cuda"):
        gpu = _gpu()
        if gpu or device != "auto":
            return _gpu_peak(gpu)
        if sys.platform == "darwin":  # torch would take mps, of which no peak is known here
            return None
    return _cpu() if device in ("auto", "cpu") else None


def size_of(model: Artifact) -> Size | None:
    """How many parameters a model has, read without loading it and without the network."""
    if model.stage == "model":
        if (model.path / "adapter_config.json").is_file():
            return None  # the adapter's own size says little of its base's
        n = sum(_parameters(file) for file in model.path.glob("*.safetensors"))
        return Size(n, "its files") if n else None
    found = _SIZE.findall(str(model.path).partition("@")[0])
    if not found:
        return None
    value, unit = found[-1]
    return Size(round(float(value) * (1e9 if unit in "bB" else 1e6)), "its name")


def _parameters(file: Path) -> int:
    """By the header of a safetensors file."""
    try:
        with open(file, "rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        shapes = [row["shape"] for name, row in header.items() if name != "__metadata__"]
    except (OSError, ValueError, KeyError, MemoryError):
        return 0
    total = 0
    for shape in shapes:
        n = 1
        for side in shape:
            n *= side
        total += n
    return total


def _gpu() -> str:
    """The first GPU's name; empty where there is none."""
    try:
        told = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=10, check=True,
        ).stdout  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return told.partition("\n")[0].strip()


def _gpu_peak(name: str) -> Peak | None:
    tera = next((GPUS[g] for g in GPUS if re.search(rf"\b{g}\b", name)), None)
    return None if tera is None else Peak(tera * 1e12, f"one {name}")


def _cpu() -> Peak:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = os.environ.get("OMP_NUM_THREADS", "")
    n = min(int(threads), cores or 1) if threads.isdigit() and int(threads) else cores or 1
    try:
        mhz = re.findall(r"^cpu MHz\s*:\s*([\d.]+)", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        mhz = []
    ghz = max(map(float, mhz)) / 1000 if mhz else _GHZ
    return Peak(n * ghz * 1e9 * _PER_CYCLE, f"{n} CPU core{'s' * (n > 1)}")
