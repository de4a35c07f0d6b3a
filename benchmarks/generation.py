"""New tokens a second of `lm.generate`, against plain `model.generate` with the same texts.

The one idea: both sides get the same pool, tokens, model, threads and batch size, and a speed only
counts beside the texts. Plain is what one writes first: pool order, so many prompts at a time,
padding on the left, greedy, until the last row of the batch is over. Where a text differs, the gap
between the two likeliest tokens at the first difference says whether it is a tie that rounding
decides; any other difference ends the script with 1. Random weights never end a text by themselves,
so for the Llama one token in STOPS ends it, on both sides alike. Two more rows have no plain
counterpart: the answer line ends a text (other tokens, so questions a second), and several samples
of a question in one call against a call each (a draw that falls on a rounding gives another text;
how often that is grows with how undecided a model is, and random weights decide nothing).

One thread and processor time, so that whatever else runs on the machine disturbs little.

    python benchmarks/generation.py [--quick] [--repeats 3] [--threads 1] [--json FILE]
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from scoring import SANDBOX, big_llama, pool_of

from bridgekd import lm
from bridgekd.core.draws import SEED_STEP
from bridgekd.core.prompts import ANSWER_LINE, explain_prompt
from bridgekd.core.throughput import Throughput
from bridgekd.lm.encode import prompt_ids, stop_ids
from bridgekd.records import Message
from bridgekd.sandbox import world

WORLD_SEED = 1000
STOPS = 60
N_SAMPLES = 4
NEAR_TIE = 1e-3  # logits; what batches of other shapes change in float32 is some 1e-5
Prompts = Sequence[tuple[Message, ...]]
Written = tuple[list[str], int]  # texts, new tokens without the ones that stopped them


@dataclass(frozen=True, slots=True)
class Setting:
    """A model with prompts, and how long and how many at a time it writes."""

    name: str
    local: lm.LocalModel
    prompts: Prompts
    max_new_tokens: int
    batch_size: int


@dataclass(frozen=True, slots=True)
class Result:
    """One way over one pool. `differ` counts texts that are not its base's, `gaps` are theirs."""

    model: str
    way: str
    base: str
    n_prompts: int
    n_tokens: int
    seconds: tuple[float, ...]  # of processor time, all threads
    wall: tuple[float, ...]
    differ: int
    gaps: tuple[float, ...]

    def speed(self, n: int) -> float:
        """`n` a second of processor time, median over the repeats."""
        return n / statistics.median(self.seconds)


def plain(s: Setting) -> Written:
    """The loop one writes first."""
    ids = prompt_ids(s.local.tokenizer, s.prompts)
    stop = set(stop_ids(s.local.tokenizer, s.local.model))
    pad = int(s.local.tokenizer.pad_token_id)
    rows: list[list[int]] = []
    for start in range(0, len(ids), s.batch_size):
        batch = ids[start : start + s.batch_size]
        width = max(map(len, batch))
        with torch.inference_mode():
            out = s.local.model.generate(
                input_ids=torch.tensor([[pad] * (width - len(row)) + row for row in batch]),
                attention_mask=torch.tensor(
                    [[0] * (width - len(row)) + [1] * len(row) for row in batch]
                ),
                max_new_tokens=s.max_new_tokens,
                do_sample=False,
            )
        for row in out[:, width:].tolist():
            end = next((k for k, token in enumerate(row) if token in stop), len(row))
            rows.append(row[:end])
    texts = s.local.tokenizer.batch_decode(rows, skip_special_tokens=True)
    return [text.strip() for text in texts], sum(map(len, rows))


def ours(s: Setting) -> Written:
    """`lm.generate`."""
    speed = Throughput()
    texts = lm.generate(
        s.local, s.prompts, max_new_tokens=s.max_new_tokens, batch_size=s.batch_size,
        throughput=speed,
    )  # fmt: skip
    return texts, speed.n_generated_tokens


def to_the_answer(s: Setting) -> Written:
    """`lm.generate` with texts that end with their answer line, as the stages call it."""
    speed = Throughput()
    texts = lm.generate(
        s.local, s.prompts, max_new_tokens=s.max_new_tokens, batch_size=s.batch_size,
        until=ANSWER_LINE, throughput=speed,
    )  # fmt: skip
    return texts, speed.n_generated_tokens


def apart(s: Setting) -> Written:
    """N_SAMPLES calls, one for each sample."""
    speed, texts = Throughput(), []
    for k in range(N_SAMPLES):
        texts += lm.generate(
            s.local, s.prompts, max_new_tokens=s.max_new_tokens, batch_size=s.batch_size,
            temperature=0.7, seed=k * SEED_STEP, throughput=speed,
        )  # fmt: skip
    return texts, speed.n_generated_tokens


def together(s: Setting) -> Written:
    """One call for all samples."""
    speed = Throughput()
    drawn = lm.sample(
        s.local, s.prompts, N_SAMPLES, max_new_tokens=s.max_new_tokens, batch_size=s.batch_size,
        temperature=0.7, throughput=speed,
    )  # fmt: skip
    return [text for texts in zip(*drawn, strict=True) for text in texts], speed.n_generated_tokens


# name: (what it does, what it is held against)
GREEDY = {"plain": (plain, "plain"), "bridgekd": (ours, "plain")}
ENDED = {"to the answer": (to_the_answer, "")}
SAMPLED = {"samples apart": (apart, "samples apart"), "samples": (together, "samples apart")}
Ways = dict[str, tuple[Callable[[Setting], Written], str]]


def compare(s: Setting, ways: Ways, repeats: int) -> list[Result]:
    """Every way over the same pool, in turn, `repeats` times after one small round to warm up."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    wall: dict[str, list[float]] = {way: [] for way in ways}
    written: dict[str, Written] = {}
    few = Setting(s.name, s.local, s.prompts[: s.batch_size], 8, s.batch_size)
    for run, _ in ways.values():
        run(few)
    for _ in range(repeats):
        for way, (run, _) in ways.items():
            started = time.process_time(), time.perf_counter()
            written[way] = run(s)
            seconds[way].append(time.process_time() - started[0])
            wall[way].append(time.perf_counter() - started[1])
    return [
        _result(s, way, base, written, (tuple(seconds[way]), tuple(wall[way])))
        for way, (_, base) in ways.items()
    ]


def _result(
    s: Setting,
    way: str,
    base: str,
    written: dict[str, Written],
    times: tuple[tuple[float, ...], tuple[float, ...]],
) -> Result:
    texts, n_tokens = written[way]
    others = written[base][0] if base else texts
    differ = sum(a != b for a, b in zip(texts, others, strict=True))
    gaps = _gaps(s, others, texts) if way in GREEDY else ()
    return Result(s.name, way, base, len(s.prompts), n_tokens, *times, differ, gaps)


def _gaps(s: Setting, texts: Sequence[str], others: Sequence[str]) -> tuple[float, ...]:
    """Of every prompt whose texts differ: the gap of its two likeliest tokens where they part."""
    ids = prompt_ids(s.local.tokenizer, s.prompts)
    return tuple(
        _gap(s, row, text, other)
        for row, text, other in zip(ids, texts, others, strict=True)
        if text != other
    )


def _gap(s: Setting, ids: list[int], text: str, other: str) -> float:
    """The prompt alone, token by token, along what the two texts share; at the token that fits only
    one of them, or ends one, the gap of the two largest logits.
    """
    both = zip(text, other, strict=False)
    shared = next((k for k, (a, b) in enumerate(both) if a != b), min(len(text), len(other)))
    new: list[int] = []
    while True:
        with torch.inference_mode():
            logits = s.local.model(input_ids=torch.tensor([ids + new])).logits[0, -1]
        best = logits.topk(2)
        told = s.local.tokenizer.decode([*new, int(best.indices[0])], skip_special_tokens=True)
        if not text[:shared].startswith(told.strip()) or len(new) >= s.max_new_tokens:
            return float(best.values[0] - best.values[1])
        new.append(int(best.indices[0]))


def settings(folder: Path, quick: bool) -> list[Setting]:
    """The sandbox's assistant on its own questions, and a Llama of 22 million random weights."""
    sandbox = lm.load(SANDBOX, device="cpu")
    questions = world.generate(256 if quick else 512, WORLD_SEED)
    llama = big_llama(folder)
    stops = [i for i in range(5, 32_000) if i * 7919 % STOPS == 0]
    llama.model.generation_config.eos_token_id = [2, *stops]
    words = [f"w{i}" for i in range(1000)]
    pool = pool_of(words, 64 if quick else 192, closed=False, median=60, longest=500)
    return [
        Setting("sandbox", sandbox, [explain_prompt(e) for e in questions], 160, 32),
        Setting("llama-22M-32k", llama, [explain_prompt(e) for e in pool], 128, 32),
    ]


HEADS = (
    f"{'model':<14} {'way':<14} {'prompts':>7} {'tokens':>7} {'tok/cpu-s':>9} {'tok/s':>7} "
    f"{'questions/cpu-s':>15} {'times':>6} {'clock':>6} {'differ':>6} ties"
)


def table(results: Sequence[Result]) -> str:
    """One line a way; `times` is against its base: tokens, processor time and the clock's."""
    lines = []
    for r in results:
        base = next((b for b in results if (b.model, b.way) == (r.model, r.base)), None)
        times = clock = differ = ""
        if base is not None and base is not r:
            times = f"{r.speed(r.n_tokens) / base.speed(base.n_tokens):.2f}"
            clock = f"{statistics.median(base.wall) / statistics.median(r.wall):.2f}"
            differ = str(r.differ)
        figures = (
            f"{r.n_prompts:>7} {r.n_tokens:>7} {r.speed(r.n_tokens):>9.0f} "
            f"{r.n_tokens / statistics.median(r.wall):>7.0f} {r.speed(r.n_prompts):>15.1f}"
        )
        ties = " ".join(f"{gap:.0e}" for gap in r.gaps)
        lines.append(
            f"{r.model:<14} {r.way:<14} {figures} {times:>6} {clock:>6} {differ:>6} {ties}"
        )
    return "\n".join(lines)


def main() -> int:
    """Runs every setting and prints the table; 1 if texts differ by more than ties."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small pools, once each")
    parser.add_argument("--repeats", type=int, help="3, or 1 with --quick")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    repeats = args.repeats or (1 if args.quick else 3)
    print(f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}\n{HEADS}", flush=True)
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as folder:
        for s in settings(Path(folder), args.quick):
            few = Setting(s.name, s.local, s.prompts[: s.batch_size], 32, s.batch_size)
            greedy = GREEDY | (ENDED if s.name == "sandbox" else {})
            for pool, ways in ((s, greedy), (few, SAMPLED)):
                results += compare(pool, ways, repeats)
                print(table(results[-len(ways) :]), flush=True)
    if args.json:
        args.json.write_text(json.dumps([asdict(r) for r in results], indent=1))
    return int(any(gap > NEAR_TIE for r in results for gap in r.gaps))


if __name__ == "__main__":
    sys.exit(main())
