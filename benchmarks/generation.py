"""New tokens a second of `lm.generate`, against plain `model.generate`: in the order of the pool,
and with the prompts sorted by length. The last way is `lm.generate` with `precision: bfloat16`.

Both sides get the same prompts, tokens, model, threads and batch size, are greedy, and end a text
at the end of its turn. The pretrained models are those in BRIDGEKD_MODELS; without it only the
sandbox's assistant runs. Texts differ where two tokens are equally likely up to rounding.

    python benchmarks/generation.py [--models FOLDER ...] [--prompts 32] [--batch-size 8]
                                    [--max-new-tokens 192] [--repeats 2]
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import GenerationConfig

import bridgekd
from bridgekd import lm
from bridgekd.lm.collate import pad_rows
from bridgekd.lm.tokenization import find_stop_ids, tokenize_prompts
from bridgekd.prompts import COT_INSTRUCTION
from bridgekd.records import Message
from bridgekd.sandbox import world

SANDBOX = Path(bridgekd.__file__).parent / "sandbox" / "models" / "assistant-middle"
WORLD_SEED = 1000
Prompts = Sequence[tuple[Message, ...]]
Way = Callable[[lm.LocalModel, Prompts, int, int], list[str]]


def make_prompts(n: int, max_context: int) -> Prompts:
    """Questions of the sandbox, each after the text of 0 to `max_context` others."""
    questions = [e.question for e in world.generate_examples((1 + max_context) * n, WORLD_SEED)]
    prompts = []
    for i in range(n):
        first = n + max_context * i
        context = " ".join(questions[first : first + i % (max_context + 1)])
        text = f"{context}\n{questions[i]}\n{COT_INSTRUCTION}".strip()
        prompts.append((Message("user", text),))
    return prompts


def generate_plain(
    local: lm.LocalModel, prompts: Prompts, batch_size: int, max_new_tokens: int
) -> list[str]:
    """The loop one writes first: pool order, padding on the left."""
    ids = tokenize_prompts(local.tokenizer, prompts)
    pad_id, stop = int(local.tokenizer.pad_token_id), find_stop_ids(local.tokenizer, local.model)
    config = GenerationConfig(
        max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=list(stop),
        pad_token_id=pad_id, repetition_penalty=1.0,
    )  # fmt: skip
    texts = []
    for start in range(0, len(ids), batch_size):
        rows, mask = pad_rows(ids[start : start + batch_size], pad_id, local.device, side="left")
        out = local.model.generate(input_ids=rows, attention_mask=mask, generation_config=config)[
            :, rows.shape[1] :
        ]
        texts += local.tokenizer.batch_decode(out, skip_special_tokens=True)
    return [text.strip() for text in texts]


def generate_package(
    local: lm.LocalModel, prompts: Prompts, batch_size: int, max_new_tokens: int
) -> list[str]:
    """`lm.generate`."""
    return lm.generate_texts(local, prompts, max_new_tokens=max_new_tokens, batch_size=batch_size)


def generate_sorted(
    local: lm.LocalModel, prompts: Prompts, batch_size: int, max_new_tokens: int
) -> list[str]:
    """The plain loop over prompts of similar length."""
    lengths = [len(ids) for ids in tokenize_prompts(local.tokenizer, prompts)]
    order = sorted(range(len(prompts)), key=lambda i: -lengths[i])
    found = generate_plain(local, [prompts[i] for i in order], batch_size, max_new_tokens)
    return [text for _, text in sorted(zip(order, found, strict=True))]


WAYS: dict[str, Way] = {
    "plain": generate_plain,
    "sorted": generate_sorted,
    "bridgekd": generate_package,
    "bfloat16": generate_package,
}


def compare(
    folder: Path, prompts: Prompts, batch_size: int, max_new_tokens: int, repeats: int
) -> None:
    """Run both ways in turn and print a line for each."""
    plain = lm.load_model(folder, device="cpu")
    narrow = lm.load_model(folder, device="cpu", precision="bfloat16")
    models = {way: narrow if way == "bfloat16" else plain for way in WAYS}
    cpu: dict[str, list[float]] = {way: [] for way in WAYS}
    clock: dict[str, list[float]] = {way: [] for way in WAYS}
    texts: dict[str, list[str]] = {}
    for way, run in WAYS.items():  # the first call is slower
        run(models[way], prompts[:1], 1, 2)
    for _ in range(repeats):
        for way, run in WAYS.items():
            started = time.process_time(), time.perf_counter()
            texts[way] = run(models[way], prompts, batch_size, max_new_tokens)
            cpu[way].append(time.process_time() - started[0])
            clock[way].append(time.perf_counter() - started[1])
    for way in WAYS:
        n_tokens = sum(map(len, plain.tokenizer(texts[way])["input_ids"]))
        n_differ = sum(a != b for a, b in zip(texts["plain"], texts[way], strict=True))
        seconds = statistics.median(cpu[way])
        times = [statistics.median(s["plain"]) / statistics.median(s[way]) for s in (cpu, clock)]
        print(
            f"{folder.name:<28} {way:<9} {n_tokens:>7} {n_tokens / seconds:>9.1f} {times[0]:>6.2f} "
            f"{times[1]:>6.2f} {n_differ:>4} of {len(prompts)}",
            flush=True,
        )


def main() -> None:
    """Run every model and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    pretrained = os.environ.get("BRIDGEKD_MODELS")
    found = sorted(p.parent for p in Path(pretrained).glob("*/config.json")) if pretrained else []
    parser.add_argument("--models", type=Path, nargs="+", default=[SANDBOX, *found])
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--max-new-tokens", type=int, default=192)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}")
    print(
        f"{'model':<28} {'way':<9} {'tokens':>7} {'tok/cpu-s':>9} {'times':>6} {'clock':>6} differ"
    )
    for folder in args.models:
        # The sandbox's models know no more than one question at a time.
        prompts = make_prompts(args.prompts, 0 if folder == SANDBOX else 3)
        compare(folder, prompts, args.batch_size, args.max_new_tokens, args.repeats)


if __name__ == "__main__":
    main()
