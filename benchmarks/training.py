"""Tokens a second of training and peak memory, against TRL's SFTTrainer on the same rows.

The one idea: every way has a process of its own and gets the same tokens in the same order, the
same weights, effective batch, optimiser and learning rate; a speed only counts beside the losses.
Useful tokens are prompt and target tokens without padding. The first update is outside the clock.

    python benchmarks/training.py [--quick] [--repeats 3] [--threads 1] [--peer-venv FOLDER]
                                  [--models student FOLDER ...] [--lora] [--json FILE]
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scoring import make_big_llama

import bridgekd
from bridgekd import lm
from bridgekd.lm.tokenization import tokenize_sequences
from bridgekd.lm.update_schedule import arrange_epochs
from bridgekd.prompts import build_cot_target, format_answer, render_cot_prompt
from bridgekd.records import Message, TargetSpan, TrainingSequence
from bridgekd.sandbox.world import generate_examples, generate_rationale

HERE = Path(__file__).parent
MODELS = Path(bridgekd.__file__).parent / "sandbox" / "models"
PEER = "trl==1.16.0"
SEED = 0
MAX_LENGTH = 1024
REFUSED = "can't keep packed sequences apart"


@dataclass(frozen=True, slots=True)
class Setting:
    """A model with rows, and what every way is told alike."""

    name: str
    model: Path
    rows: Sequence[TrainingSequence]
    batch_size: int
    n_updates: int
    learning_rate: float
    lora: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """One training. Seconds and tokens are those after the first update."""

    setting: str
    way: str
    tokens: int
    wall_s: float
    cpu_s: float
    peak_mib: float
    losses: tuple[float, ...]


def build_ways(
    batch_size: int, rows_per_pack: float, *, is_pretrained: bool
) -> dict[str, dict[str, Any]]:
    """How SFTTrainer is told to train: as it comes, and better informed."""
    micro = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": batch_size // 8}
    packs = max(1, round(batch_size / rows_per_pack))
    packed = {"packing": True, "per_device_train_batch_size": packs}
    kept = {"gradient_checkpointing": False}  # on by default, a third slower
    if is_pretrained:  # its best ones; 8 rows at once pass the memory of a small machine
        free = {"padding_free": True, "max_length": None, "per_device_train_batch_size": 4}
        free |= {"gradient_accumulation_steps": max(1, batch_size // 4)}
        return {
            "trl, padding-free, activations kept": free | kept,
            "trl, packing, activations kept": packed | kept,
            "trl, padding-free, bfloat16": free | kept | {"bf16": True},
        }
    return {
        "trl, defaults": micro,
        "trl, activations kept": micro | kept,
        "trl, packing": packed,
        "trl, packing, activations kept": packed | kept,
    }


def sandbox(
    model: Path, n_updates: int, batch_size: int, learning_rate: float, *, lora: bool = False
) -> Setting:
    """A model of the sandbox, or a pretrained one, and rationales of the sandbox's teacher."""
    rows = []
    for example in generate_examples(n_updates * batch_size, seed=SEED):
        report_line, _ = generate_rationale(example.question, SEED)
        spans = build_cot_target(report_line, format_answer(example), 1.0)
        rows.append(TrainingSequence(example.id, render_cot_prompt(example), spans))
    return Setting(model.name, model, rows, batch_size, n_updates, learning_rate, lora)


def make_llama(folder: Path, n_updates: int, batch_size: int) -> Setting:
    """A Llama of 0.1 G random parameters, 32,000 words, and rows of random words with the lengths
    of grade-school problems: prompts lognormal around 70 words, targets around 110.
    """
    make_big_llama(folder, width=768, n_layers=12)
    rng = np.random.default_rng(SEED)

    def text(median: float, sigma: float) -> str:
        n = min(int(np.exp(rng.normal(np.log(median), sigma))) + 1, MAX_LENGTH // 3)
        return " ".join(f"w{i}" for i in rng.integers(0, 1000, n))

    rows = [
        TrainingSequence(
            str(i),
            (Message("user", text(70, 0.4)),),
            (TargetSpan(text(110, 0.5)), TargetSpan(" w1 w2")),
        )
        for i in range(n_updates * batch_size)
    ]
    return Setting("llama-0.1G-32k", folder, rows, batch_size, n_updates, 1e-4)


def train(s: Setting, way: str, python: str, folder: Path, threads: int) -> Run | None:
    """One training in a process of its own; None where the library refuses it."""
    tokenizer = lm.load_model(s.model, device="cpu").tokenizer
    encoded = tokenize_sequences(tokenizer, s.rows)
    rows_per_pack = MAX_LENGTH / float(np.mean([len(row.ids) for row in encoded]))
    order = arrange_epochs(np.zeros(len(encoded), dtype=np.int64), len(encoded), SEED)
    job = {
        "who": "bridgekd" if way.startswith("bridgekd") else "trl",
        "model": str(s.model), "out": str(folder / "out"), "found": str(folder / "found.json"),
        "batch_size": s.batch_size, "n_updates": s.n_updates, "seed": SEED, "threads": threads,
        "learning_rate": s.learning_rate,
        "rows": [(row.prompt[0].content, [span.text for span in row.spans]) for row in s.rows],
        "tokens": [(encoded[i].ids, encoded[i].n_prompt) for i in order.tolist()],
        "trl": list_ways(s, rows_per_pack).get(way), "lora": s.lora,
        "precision": "bfloat16" if way == "bridgekd, bfloat16" else "auto",
    }  # fmt: skip
    (folder / "job.json").write_text(json.dumps(job))
    found = subprocess.run(
        [python, HERE / "peers" / "training_job.py", folder / "job.json"],
        env=os.environ | {"OMP_NUM_THREADS": str(threads)}, capture_output=True, text=True,
    )  # fmt: skip
    if REFUSED in found.stderr:
        print(f"{s.name}, {way}: {found.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    if found.returncode:
        raise SystemExit(f"{way}: {found.stderr[-2000:]}")
    report_line = json.loads((folder / "found.json").read_text())
    wall, cpu = (report_line[clock][-1] - report_line[clock][0] for clock in ("wall", "cpu"))
    tokens, losses = sum(report_line["tokens"][1:]), tuple(report_line["losses"])
    return Run(s.name, way, tokens, wall, cpu, report_line["peak_mib"], losses)


def list_ways(s: Setting, rows_per_pack: float = 1) -> dict[str, dict[str, Any]]:
    return build_ways(s.batch_size, rows_per_pack, is_pretrained=s.model.parent != MODELS)


def find_peer_python(folder: Path) -> str:
    """The interpreter of a virtual environment with TRL and this package's torch."""
    python = folder / "bin" / "python"
    if not python.exists():
        import torch

        version = torch.__version__.partition("+")[0]
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [python, "-m", "pip", "install", "-q"]
        subprocess.run([*pip, f"torch=={version}"], check=True)
        subprocess.run([*pip, "-c", HERE.parent / "constraints.txt", PEER], check=True)
    return str(python)


def table(runs: Sequence[Run]) -> str:
    """A line a way: medians; `times` is against the fastest TRL; `apart` the largest difference of
    a loss to bridgekd's, where the updates hold the same rows.
    """
    lines = [
        f"{'model':<17} {'way':<31} {'tok/cpu-s':>9} {'tok/s':>8} {'MiB':>6} {'times':>6} "
        f"{'first':>7} {'last':>7} {'apart':>8}"
    ]
    for name in dict.fromkeys(r.setting for r in runs):
        mine = [r for r in runs if r.setting == name]
        groups = {
            way: [r for r in mine if r.way == way] for way in dict.fromkeys(r.way for r in mine)
        }
        speed = {w: statistics.median(r.tokens / r.cpu_s for r in g) for w, g in groups.items()}
        best = max((v for w, v in speed.items() if w.startswith("trl")), default=float("nan"))
        base = next(iter(groups.values()))[0].losses
        for way, group in groups.items():
            losses = group[0].losses
            apart = max(abs(a - b) for a, b in zip(losses, base, strict=False))
            lines.append(
                f"{name:<17} {way:<31} {speed[way]:>9.0f} "
                f"{statistics.median(r.tokens / r.wall_s for r in group):>8.0f} "
                f"{statistics.median(r.peak_mib for r in group):>6.0f} {speed[way] / best:>6.2f} "
                f"{losses[0]:>7.3f} {losses[-1]:>7.3f} "
                + (f"{'':>8}" if "packing" in way else f"{apart:>8.1e}")
            )
    return "\n".join(lines)


def settings(names: Sequence[str], folder: Path, *, quick: bool, lora: bool) -> list[Setting]:
    n = 10 if quick else 40
    known = {
        "student": lambda: sandbox(MODELS / "student", n, 64, 4e-3),
        "assistant-middle": lambda: sandbox(MODELS / "assistant-middle", n, 16, 1e-3),
        "llama": lambda: make_llama(folder, 3 if quick else 6, 16),
    }
    return [
        known[name]() if name in known
        else sandbox(Path(name), 3 if quick else 6, 8, 1e-4, lora=lora)
        for name in names
    ]  # fmt: skip


def main() -> None:
    """Runs every way over every setting, in turn, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few updates, once each")
    parser.add_argument("--repeats", type=int, help="3, or 1 with --quick")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peer-venv", type=Path, help="where TRL is, or will be installed")
    parser.add_argument(
        "--models", nargs="+", default=["student", "assistant-middle", "llama"],
        help="student, assistant-middle, llama, or folders of pretrained models",
    )  # fmt: skip
    parser.add_argument("--lora", action="store_true", help="adapters of pretrained models")
    parser.add_argument("--ways", nargs="+", help="patterns of the ways to run")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    print(f"{args.threads} threads, load {os.getloadavg()[0]:.1f}", flush=True)
    runs: list[Run] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        peer = find_peer_python(args.peer_venv or folder / "trl")
        found = settings(args.models, folder / "llama", quick=args.quick, lora=args.lora)
        for setting in found:
            mine = ["bridgekd"]
            if setting.model.parent != MODELS and not setting.lora:
                mine.append("bridgekd, bfloat16")
            kinds = [
                way for way in (*mine, *list_ways(setting))
                if not args.ways or any(re.search(part, way) for part in args.ways)
            ]  # fmt: skip
            for _ in range(args.repeats or (1 if args.quick else 3)):
                for way in kinds:
                    python = sys.executable if way.startswith("bridgekd") else peer
                    run = train(setting, way, python, folder, args.threads)
                    runs += [run] if run else []
                    print(run, file=sys.stderr, flush=True)
    print(table(runs))
    if args.json:
        args.json.write_text(json.dumps([asdict(run) for run in runs], indent=1))


if __name__ == "__main__":
    main()
