"""Processor time of the own decoder of `lm.generate` against length-sorted `model.generate`.

Both continue the same prompts greedily with the same model, batch size and end of a text: the end
of a turn, or a whole answer line. Usage:

    python benchmarks/decoder.py MODEL_FOLDER [N_PROMPTS] [BATCH_SIZE] [MAX_NEW_TOKENS] [REPEATS]
"""

import statistics
import sys
import time

import torch
from transformers import StoppingCriteria

from bridgekd import lm
from bridgekd.core.prompts import ANSWER_LINE, EXPLAIN_REQUEST
from bridgekd.core.throughput import Throughput
from bridgekd.lm.batches import length_sorted, pad_left
from bridgekd.lm.encode import prompt_ids, stop_ids
from bridgekd.records import Message
from bridgekd.sandbox import world


class LineEnd(StoppingCriteria):
    """Ends a row with its answer line; looked for after tokens with a line break."""

    def __init__(self, tokenizer, width):
        self.tokenizer, self.width, self.ended, self.breaks = tokenizer, width, None, {}

    def __call__(self, input_ids, scores, **kwargs):
        self.ended = self.ended or [False] * len(input_ids)
        for i, token in enumerate(input_ids[:, -1].tolist()):
            if token not in self.breaks:
                self.breaks[token] = "\n" in self.tokenizer.decode([token])
            if self.breaks[token] and not self.ended[i]:
                text = self.tokenizer.decode(input_ids[i, self.width :], skip_special_tokens=True)
                self.ended[i] = ANSWER_LINE.search(text) is not None
        return torch.tensor(self.ended)


def make_prompts(n):
    """Questions of the sandbox behind the text of none to three others."""
    questions = [e.question for e in world.generate(4 * n, 1000)]
    prompts = []
    for i in range(n):
        context = " ".join(questions[n + 3 * i : n + 3 * i + i % 4])
        text = f"{context}\n{questions[i]}\n{EXPLAIN_REQUEST}".strip()
        prompts.append((Message("user", text),))
    return prompts


def run_decoder(local, prompts, batch_size, max_new_tokens):
    speed = Throughput()
    texts = lm.generate(
        local, prompts, max_new_tokens=max_new_tokens, batch_size=batch_size, until=ANSWER_LINE,
        throughput=speed,
    )  # fmt: skip
    return texts


def run_sorted(local, prompts, batch_size, max_new_tokens):
    ids = prompt_ids(local.tokenizer, prompts)
    pad, stop = int(local.tokenizer.pad_token_id), set(stop_ids(local.tokenizer, local.model))
    rows = [[]] * len(ids)
    for batch in length_sorted([len(row) for row in ids], batch_size):
        x, mask = pad_left([ids[i] for i in batch], pad, "cpu")
        width = x.shape[1]
        with torch.inference_mode():
            out = local.model.generate(
                input_ids=x, attention_mask=mask, max_new_tokens=max_new_tokens, do_sample=False,
                repetition_penalty=1.0, pad_token_id=pad,
                stopping_criteria=[LineEnd(local.tokenizer, width)],
            )  # fmt: skip
        for i, row in zip(batch, out[:, width:].tolist(), strict=True):
            rows[i] = row[: next((k for k, t in enumerate(row) if t in stop), len(row))]
    texts = local.tokenizer.batch_decode(rows, skip_special_tokens=True)
    ends = [ANSWER_LINE.search(text) for text in texts]
    return [(t[: e.end()] if e else t).strip() for t, e in zip(texts, ends, strict=True)]


def main():
    n, batch_size, max_new_tokens, repeats = (
        int(sys.argv[k]) if len(sys.argv) > k else default
        for k, default in ((2, 32), (3, 8), (4, 192), (5, 2))
    )
    torch.set_num_threads(1)
    local = lm.load(sys.argv[1], device="cpu")
    prompts = make_prompts(n)
    ways = {"own decoder": run_decoder, "length-sorted": run_sorted}
    cpu, clock, texts = {w: [] for w in ways}, {w: [] for w in ways}, {}
    for _ in range(repeats):
        for way, run in ways.items():
            started = time.process_time(), time.perf_counter()
            texts[way] = run(local, prompts, batch_size, max_new_tokens)
            cpu[way].append(time.process_time() - started[0])
            clock[way].append(time.perf_counter() - started[1])
    tokens = sorted(len(ids) for ids in local.tokenizer(texts["length-sorted"])["input_ids"])
    print("new tokens: quartiles", [tokens[k * (n - 1) // 4] for k in range(5)])
    print("texts that differ:", sum(a != b for a, b in zip(*texts.values(), strict=True)))
    for name, seconds in (("processor", cpu), ("clock", clock)):
        ratio = statistics.median(seconds["length-sorted"]) / statistics.median(
            seconds["own decoder"]
        )
        print(f"{name}: {seconds}, own decoder {ratio:.2f} times as fast")


if __name__ == "__main__":
    main()
