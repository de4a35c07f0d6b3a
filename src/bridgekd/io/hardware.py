"""The name of the device that a recipe works on, without torch: measured times belong to it."""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path


def describe_device(device: str) -> str:
    """Return the name of the processor and its threads, or of the first GPU.

    device: auto, cuda, mps or cpu, as in a recipe.
    """
    if device in ("auto", "cuda") or device.startswith("cuda:"):
        gpu = _get_gpu_name()
        if gpu or device != "auto":
            return gpu or device
        if sys.platform == "darwin":
            return f"mps on {platform.machine()}"
    return device if device not in ("auto", "cpu") else _describe_cpu()


def _get_gpu_name() -> str:
    """The first GPU's name; empty where there is none."""
    try:
        listing = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=10, check=True,
        ).stdout  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return listing.partition("\n")[0].strip()


def _describe_cpu() -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = os.environ.get("OMP_NUM_THREADS", "")
    n = min(int(threads), cores or 1) if threads.isdigit() and int(threads) else cores or 1
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    names = re.findall(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return f"{n} x {names[0] if names else platform.processor() or platform.machine()}"
