"""Questions a second of `lm.score`, against a plain loop over transformers with the same numbers.

The one idea: both sides get the same pool, tokens, model, threads and batch size, and a speed only
counts beside the largest difference between their numbers. The plain loop is what one writes first:
pool order, a fixed number of rows, padding on the right, all logits. A third way, for options, is
this package's own pass with every option in full, so that what sharing the prompt gives is seen by
itself. One thread and processor time, so that whatever else runs on the machine disturbs little;
where it is quiet the two clocks agree.

    python benchmarks/scoring.py [--quick] [--repeats 3] [--threads 1] [--models FOLDER ...]
                                 [--json FILE]
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

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import bridgekd
from bridgekd import lm
from bridgekd.lm import choice_logprobs
from bridgekd.lm.collate import batch_by_median_tokens
from bridgekd.lm.forward import eval_mode
from bridgekd.lm.score_inputs import (
    TokenizedPrompt,
    format_choices,
    tokenize_answer_prompts,
    tokenize_answers,
)
from bridgekd.prompts import format_answer
from bridgekd.records import Example
from bridgekd.selection.difficulty import MEASURES
from bridgekd.selection.difficulty.entropy import choice_entropy

SANDBOX = Path(bridgekd.__file__).parent / "sandbox" / "models" / "assistant-middle"
VOCABULARY = 32_000
SEED = 0
CLOSE = 1e-4
Numbers = tuple[NDArray[np.float64], NDArray[np.float32]]  # difficulty [n], embeddings [n, width]


@dataclass(frozen=True, slots=True)
class Result:
    """One way to score one pool. `apart` is the largest difference to the plain loop's numbers."""

    model: str
    measure: str
    way: str
    n: int
    batch_size: int
    seconds: tuple[float, ...]  # of processor time, all threads
    wall: tuple[float, ...]
    apart: float

    @property
    def speed(self) -> float:
        """Questions a second of processor time, median over the repeats."""
        return self.n / statistics.median(self.seconds)


def plain(
    local: lm.LocalModel,
    options: Sequence[TokenizedPrompt],
    answers: Sequence[tuple[list[int], int]],
    size: int,
) -> Numbers:
    """Mean NLL of each answer's own tokens, and the question's embedding: the loop one writes
    first."""
    losses, vectors = [], []
    for start in range(0, len(options), size):
        batch = list(zip(options, answers, strict=True))[start : start + size]
        rows = [torch.tensor([*a.ids, *target]) for a, (target, _) in batch]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(r) for r in rows], batch_first=True)
        with torch.inference_mode():
            out = local.model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
            nll = torch.nn.functional.cross_entropy(
                out.logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
            ).view(len(batch), -1)
        for i, (a, (target, n)) in enumerate(batch):
            end = len(a.ids) + len(target) - 1
            losses.append(float(nll[i, end - n : end].double().mean()))
            question = torch.tensor(a.is_question).nonzero()[:, 0]
            mean = out.hidden_states[-1][i, question].mean(0)
            vectors.append((mean / mean.norm()).numpy())
    return np.array(losses), np.stack(vectors)


def compute_plain_loss(local: lm.LocalModel, pool: Sequence[Example], size: int) -> Numbers:
    """The `loss` of the plain loop."""
    return plain(
        local,
        tokenize_answer_prompts(local.tokenizer, pool),
        tokenize_answers(local.tokenizer, [format_answer(e) for e in pool]),
        size,
    )


def compute_plain_entropy(local: lm.LocalModel, pool: Sequence[Example], size: int) -> Numbers:
    """The `entropy` over options of the plain loop: a row an option."""
    counts = [len(e.choices) for e in pool]
    options = [
        a
        for a, count in zip(tokenize_answer_prompts(local.tokenizer, pool), counts, strict=True)
        for _ in range(count)
    ]
    shown = [option for example in pool for option in format_choices(example)]
    losses, vectors = plain(local, options, tokenize_answers(local.tokenizer, shown), size)
    firsts = np.cumsum([0, *counts[:-1]])
    entropies = [choice_entropy(-part) for part in np.split(losses, firsts[1:])]
    return np.array(entropies), vectors[firsts]


def compute_full_entropy(local: lm.LocalModel, pool: Sequence[Example], size: int) -> Numbers:
    """The `entropy` of this package without a shared prompt; its batches are the same."""
    questions = choice_logprobs.tokenize_choices(local.tokenizer, pool)
    costs = [max(len(row.ids) for row in q.build_rows()) * len(q.targets) for q in questions]
    entropies, vectors = np.zeros(len(pool)), [np.zeros(0)] * len(pool)
    with eval_mode(local.model):
        for batch in batch_by_median_tokens(costs, size):
            values, embeddings = choice_logprobs.score_full(local, [questions[i] for i in batch])
            entropies[batch] = [choice_entropy(value) for value in values]
            for i, vector in zip(batch, embeddings.numpy(), strict=True):
                vectors[i] = vector
    return entropies, np.stack(vectors)


def score_with_bridgekd(measure: str) -> Callable[[lm.LocalModel, Sequence[Example], int], Numbers]:
    """`lm.score` in the shape of the others."""

    def scored(local: lm.LocalModel, pool: Sequence[Example], size: int) -> Numbers:
        found = lm.score_examples(local, pool, measure=MEASURES.get(measure), batch_size=size)
        return found.difficulty, found.embeddings

    return scored


RIVALS = {
    "loss": {"plain": compute_plain_loss, "bridgekd": score_with_bridgekd("loss")},
    "entropy": {
        "plain": compute_plain_entropy,
        "full": compute_full_entropy,
        "bridgekd": score_with_bridgekd("entropy"),
    },
}


def compare(
    name: str,
    local: lm.LocalModel,
    measure: str,
    pool: Sequence[Example],
    *,
    size: int,
    repeats: int,
) -> list[Result]:
    """Every way over the same pool, in turn, `repeats` times after one small round to warm up."""
    rivals = RIVALS[measure]
    seconds: dict[str, list[float]] = {way: [] for way in rivals}
    wall: dict[str, list[float]] = {way: [] for way in rivals}
    numbers: dict[str, Numbers] = {}
    for score_pool in rivals.values():
        score_pool(local, pool[:2], size)
    for _ in range(repeats):
        for way, run in rivals.items():
            started = time.process_time(), time.perf_counter()
            numbers[way] = run(local, pool, size)
            seconds[way].append(time.process_time() - started[0])
            wall[way].append(time.perf_counter() - started[1])
    return [
        Result(name, measure, way, len(pool), size, tuple(seconds[way]), tuple(wall[way]), apart)
        for way in rivals
        for apart in [_measure_distance(numbers[way], numbers["plain"])]
    ]


def _measure_distance(one: Numbers, other: Numbers) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True))


def make_pool(
    words: Sequence[str], n: int, *, closed: bool, median: float, longest: int
) -> list[Example]:
    """n questions of random words, their lengths lognormal (sigma 0.8) and in no order."""
    rng = np.random.default_rng(SEED)
    lengths = np.minimum(np.exp(rng.normal(np.log(median), 0.8, n)).astype(int) + 1, longest)

    def text(length: int) -> str:
        return " ".join(rng.choice(words, length))

    examples = []
    for i, length in enumerate(lengths):
        choices = tuple(text(int(rng.integers(1, 5))) for _ in range(4)) if closed else ()
        answer = choices[0] if closed else text(int(rng.integers(1, 5)))
        examples.append(Example(str(i), f"{text(int(length))} ?", answer, choices))
    return examples


def make_big_llama(folder: Path, width: int = 384, n_layers: int = 6) -> lm.LocalModel:
    """A Llama of 22 million random parameters, unless told otherwise, with a vocabulary of 32,000
    words.
    """
    torch.manual_seed(SEED)
    words = ["<pad>", "<s>", "</s>", "<unk>", "Answer:", *(f"w{i}" for i in range(VOCABULARY - 5))]
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    raw.add_special_tokens([AddedToken(token, special=True) for token in words[:4]])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=width, intermediate_size=width * 8 // 3,
        num_hidden_layers=n_layers, num_attention_heads=width // 64, tie_word_embeddings=True,
        num_key_value_heads=2,
        max_position_embeddings=1024, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        initializer_range=0.1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return lm.load_model(folder, device="cpu")


def format_table(results: Sequence[Result]) -> str:
    """One line a way; `times` is against the plain loop."""
    bases = {(r.model, r.measure): r.speed for r in results if r.way == "plain"}
    heads = f"{'questions':>9} {'batch':>5} {'q/cpu-s':>8} {'q/s':>8} {'times':>6} {'apart':>8}"
    lines = [f"{'model':<16} {'measure':<8} {'way':<9} {heads}"]
    for r in results:
        figures = f"{r.speed:>8.1f} {r.n / statistics.median(r.wall):>8.1f}"
        times = r.speed / bases[r.model, r.measure]
        lines.append(
            f"{r.model:<16} {r.measure:<8} {r.way:<9} {r.n:>9} {r.batch_size:>5} {figures} "
            f"{times:>6.2f} {r.apart:>8.1e}"
        )
    return "\n".join(lines)


def main() -> int:
    """Runs every setting and prints the table; 1 if any numbers are apart."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small pools, once each")
    parser.add_argument("--repeats", type=int, help="3, or 1 with --quick")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--models", type=Path, nargs="+", help="only these pretrained models")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    repeats = args.repeats or (1 if args.quick else 3)
    print(f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}", flush=True)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        known = ["Ann", "Bob", "has", "three", "red", "apples", "gives", "two", "more", "box"]
        words = [f"w{i}" for i in range(1000)]
        settings: list[tuple[str, lm.LocalModel, Sequence[str], int, int, int, int]] = [
            (model.name, lm.load_model(model, device="cpu"), known, 8, 60, 300, 4)
            for model in args.models or []
        ]
        if not settings:
            sandbox = lm.load_model(SANDBOX, device="cpu")
            llama = make_big_llama(Path(folder))
            settings = [
                ("sandbox", sandbox, known, 200 if args.quick else 600, 40, 250, 32),
                ("llama-22M-32k", llama, words, 48 if args.quick else 128, 60, 500, 16),
            ]
        for name, local, vocabulary, n, median, longest, size in settings:
            for measure in RIVALS:
                pool = make_pool(
                    vocabulary, n, closed=measure == "entropy", median=median, longest=longest
                )
                results += compare(name, local, measure, pool, size=size, repeats=repeats)
    print(format_table(results))
    if args.json:
        args.json.write_text(json.dumps([asdict(r) for r in results], indent=1))
    return int(any(r.apart > CLOSE for r in results))


if __name__ == "__main__":
    sys.exit(main())
