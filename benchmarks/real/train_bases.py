"""Base models to learn from, made of real English: no download, no rationale, no test question.

    BRIDGEKD_DATA=FOLDER OMP_NUM_THREADS=1 python benchmarks/real/train_bases.py [--folder base]

One byte-level BPE for all of them, digits apart. The architecture is the sandbox's (Lfm2: short
convolutions and attention), because nothing else learnt to copy in so little text. Two lessons:
drills of copying, made of the texts' own most frequent words, then texts with drills between.
Seeded; what is done is found, a lesson that was cut short goes on. `large` (10 M) is for a GPU or a
long night.
"""

import argparse
import json
import os
import random
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "sandbox_models"))

from pretraining_text import questions_of_tests, refuse_tests, training_texts
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from train_base_models import ATTENTION, CONV, make_model
from transformers import PreTrainedTokenizerFast
from world_tokenizer import SPECIAL_TOKENS, wrap_tokenizer

from bridgekd.io.disk import write_atomic
from bridgekd.lm.training_job import TrainingJob
from bridgekd.lm.training_loop import fine_tune
from bridgekd.recipe import RuntimeOptions, TrainOptions
from bridgekd.records import TargetSpan, TrainingSequence

VOCABULARY = 2048
ROW_WORDS = 100  # a row of text holds about so many
N_WORDS = 300  # the most frequent ones: with 4,000 copying was not learnt in 0.6 M tokens
N_WORDS_BETWEEN = 3_000
DRILLS_BETWEEN = 0.35  # rows of drills for one of text
WORDINGS = ("{a} {b}", "{a}: {b}", "{a} is {b}", "{a} has {b}", "{a} = {b}", "the {a} to the {b}",
            "{a} has a {b}", "now {a} has the {b}", '"{a}" - {b}')  # fmt: skip
SEED = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """One model: its shape, and how much of each lesson it sees."""

    width: int
    inner: int
    layers: tuple[str, ...]
    n_heads: int
    learning_rate: float
    epochs: int
    n_rows: int = 7_000  # of text, at most
    n_drills: int = 9_600  # rows of the lesson of copying


PLANS = {
    "student": Plan(80, 160, (CONV, ATTENTION), 2, 3e-3, 2),
    "assistant": Plan(128, 256, (CONV, ATTENTION, CONV, ATTENTION), 4, 2e-3, 1),
    "large": Plan(320, 768, (CONV, ATTENTION) * 4, 8, 1e-3, 8, n_rows=100_000, n_drills=32_000),
}


def make_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE over the texts, every digit by itself, with the sandbox's chat template."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    raw.decoder = decoders.ByteLevel()
    raw.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return wrap_tokenizer(raw)


def drill_rows(
    texts: Sequence[str], n: int, seed: int, *, n_words: int, bare: float
) -> list[TrainingSequence]:
    """A few pairs of the `n_words` most frequent words again and again, a share `bare` of the rows
    without words between.
    """
    rng = random.Random(f"drills:{bare}:{seed}")
    counts = Counter(word for text in texts for word in re.findall(r"[A-Za-z]{2,}|\d+", text))
    words = [word for word, _ in counts.most_common(n_words)]
    rows = []
    for i in range(n):
        n_pairs = rng.randint(2, 5)
        drawn = rng.sample(words, 2 * n_pairs)
        pairs = list(zip(drawn[:n_pairs], drawn[n_pairs:], strict=True))
        ways = [WORDINGS[0]] if rng.random() < bare else rng.sample(WORDINGS, rng.randint(1, 2))
        said = pairs + rng.choices(pairs, k=rng.randint(10, 16))
        text = ". ".join(rng.choice(ways).format(a=a, b=b) for a, b in said)
        rows.append(TrainingSequence(f"drill-{i}", (), (TargetSpan(f"{text}."),)))
    return rows


def text_rows(texts: Sequence[str], seed: int) -> list[TrainingSequence]:
    """The texts in random order as rows of about ROW_WORDS words: short ones put together, long
    ones cut.
    """
    rng = random.Random(f"text:{seed}")
    order = rng.sample(list(texts), len(texts))
    return [
        TrainingSequence(f"text-{i}", (), (TargetSpan(row),))
        for i, row in enumerate(_packed(order))
    ]


def _packed(texts: Sequence[str]) -> Iterator[str]:
    row, n = [], 0
    for text in texts:
        pieces = re.findall(rf"(?:\S+\s*){{1,{ROW_WORDS}}}", text.strip())
        for piece in pieces:
            size = len(piece.split())
            if row and n + size > ROW_WORDS:
                yield "\n".join(row)
                row, n = [], 0
            row.append(piece.strip())
            n += size
    if row:
        yield "\n".join(row)


def build(name: str, plan: Plan, texts: Sequence[str], folder: Path, seed: int = SEED) -> None:
    """Trains the model into `folder/name`, from the lesson where it stood."""
    work = folder / f"{name}.lessons"
    plain = text_rows(texts, seed)[: plan.n_rows]
    n_between = int(len(plain) * DRILLS_BETWEEN)
    bare = drill_rows(texts, plan.n_drills, seed, n_words=N_WORDS, bare=1.0)
    between = drill_rows(texts, n_between, seed, n_words=N_WORDS_BETWEEN, bare=0.3)
    lessons = {"copying": (bare, "constant", 1), "text": (plain + between, "cosine", plan.epochs)}
    latest = work / "start"
    if not latest.is_dir():
        tokenizer = make_tokenizer(texts)
        make_model(plan, tokenizer, seed).save_pretrained(latest)
        tokenizer.save_pretrained(latest)
    for lesson, (rows, schedule, epochs) in lessons.items():
        config = TrainOptions(learning_rate=plan.learning_rate, batch_size=16,
                       lr_scheduler_type=schedule, epochs=epochs)  # fmt: skip
        done = work / f"{lesson}.json"
        if not done.is_file():
            told = _taught(latest, rows, work / lesson, config, seed, label=f"{name} {lesson}")
            write_atomic(done, json.dumps(told, indent=1))
        print(f"{name} {lesson}: {done.read_text()}", flush=True)
        latest = work / lesson
    shutil.rmtree(folder / name, ignore_errors=True)
    shutil.copytree(latest, folder / name, ignore=shutil.ignore_patterns("training_log.jsonl"))


def _taught(
    base: Path,
    rows: Sequence[TrainingSequence],
    out: Path,
    config: TrainOptions,
    seed: int,
    *,
    label: str,
) -> dict[str, Any]:
    """One lesson; what is told of it. A lesson that was cut short goes on within a minute of it."""
    started = time.process_time()

    def tell(what: str, done: int, total: int) -> None:
        if done % 25 == 0 or done == total:
            spent = time.process_time() - started
            print(f"{what}: {done} of {total} updates, {spent:.0f} s of CPU here", flush=True)

    log = fine_tune(
        TrainingJob(
            base,
            rows,
            out,
            config,
            n_updates=config.compute_n_updates(len(rows)),
            seed=seed,
            device="auto",
            label=label,
            runtime=RuntimeOptions(checkpoint_interval_s=60),
            workdir=out.with_name(f"{out.name}.unfinished"),
        ),
        tell,
    )
    losses = [
        json.loads(line)["loss"] for line in (out / "training_log.jsonl").read_text().splitlines()
    ]
    return {
        "rows": log.n_rows,
        "updates": log.n_updates,
        "tokens": log.n_tokens,
        "cpu_s_here": round(time.process_time() - started),
        "losses": [round(loss, 3) for loss in losses[:: max(1, len(losses) // 10)]],
        "last_loss": round(losses[-1], 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", default=["student", "assistant"])
    parser.add_argument("--folder", type=Path, default=Path("base"))
    parser.add_argument("--seed", type=int, default=SEED)
    asked = parser.parse_args()
    if "BRIDGEKD_DATA" not in os.environ:
        sys.exit("BRIDGEKD_DATA names no folder of data sets; set it")
    data = Path(os.environ["BRIDGEKD_DATA"])
    texts = [t.text for t in training_texts(data)]
    refuse_tests(texts, questions_of_tests(data))
    asked.folder.mkdir(parents=True, exist_ok=True)
    print(f"{len(texts):,} texts, {sum(len(t.split()) for t in texts):,} words", flush=True)
    for name in asked.names:
        if name not in PLANS:
            sys.exit(f"no model is named {name!r}; known: {', '.join(PLANS)}")
        build(name, PLANS[name], texts, asked.folder, asked.seed)


if __name__ == "__main__":
    main()
