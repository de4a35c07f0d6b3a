"""One training in a process of its own: reads a job from its first argument, writes when every
update ended, how many tokens it had, its loss, and the process's largest memory. Runs in any
virtual environment.
"""

import itertools
import json
import resource
import sys
import time
from pathlib import Path

import torch


def read_clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def bridgekd(job: dict) -> tuple[list, list, list]:
    from bridgekd import lm
    from bridgekd.lm.tokenization import tokenize_sequences
    from bridgekd.lm.update_schedule import UpdateSchedule
    from bridgekd.recipe import LoraOptions, RuntimeOptions, TrainOptions
    from bridgekd.records import Message, TargetSpan, TrainingSequence

    rows = [
        TrainingSequence(
            str(i), (Message("user", options),), tuple(TargetSpan(text) for text in spans)
        )
        for i, (options, spans) in enumerate(job["rows"])
    ]
    train = TrainOptions(
        learning_rate=job["learning_rate"], batch_size=job["batch_size"],
        lr_scheduler_type="constant", warmup_ratio=0.0,
    )  # fmt: skip
    times = []
    log = lm.fine_tune(
        lm.TrainingJob(
            job["model"],
            rows,
            Path(job["out"]),
            train,
            n_updates=job["n_updates"],
            seed=job["seed"],
            device="cpu",
            lora=LoraOptions() if job["lora"] else None,
            runtime=RuntimeOptions(precision=job["precision"]),
        ),
        lambda *_: times.append(read_clocks()),
    )
    assert log.n_rows == len(rows)
    encoded = tokenize_sequences(lm.load_model(job["model"], device="cpu").tokenizer, rows)
    updates = UpdateSchedule(
        encoded, batch_size=train.batch_size, n_updates=log.n_updates, seed=job["seed"]
    )
    until = [updates.count_tokens_until(k) for k in range(log.n_updates + 1)]
    tokens = [b - a for a, b in itertools.pairwise(until)]
    lines = (Path(job["out"]) / "training_log.jsonl").read_text().splitlines()
    return times, tokens, [json.loads(line)["loss"] for line in lines]


def train_with_trl(job: dict) -> tuple[list, list, list]:
    """SFTTrainer on the tokens of the job, in its order; `trl` holds what is not the default."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    times, tokens, losses = [], [0], []

    class Clock(TrainerCallback):
        def on_step_end(self, *_, **__):
            times.append(read_clocks())
            tokens.append(0)

        def on_log(self, args, state, control, logs=None, **_):
            if logs and "loss" in logs:
                losses.append(logs["loss"])

    class Counting(SFTTrainer):
        def training_step(self, model, inputs, *rest):
            labels, mask = inputs["input_ids"], inputs.get("attention_mask")
            tokens[-1] += int(labels.numel() if mask is None else mask.sum())
            return super().training_step(model, inputs, *rest)

    config = SFTConfig(
        output_dir=job["out"], learning_rate=job["learning_rate"], lr_scheduler_type="constant",
        warmup_steps=0, logging_steps=1, save_strategy="no", report_to="none",
        use_cpu=True, disable_tqdm=True, seed=job["seed"], train_sampling_strategy="sequential",
        num_train_epochs=1, dataloader_pin_memory=False,
        **({"bf16": False} | job["trl"]),
    )  # fmt: skip
    labels = [[-100] * n + ids[n:] for ids, n in job["tokens"]]
    rows = Dataset.from_dict({"input_ids": [ids for ids, _ in job["tokens"]], "labels": labels})
    adapter = None
    if job["lora"]:
        from peft import LoraConfig

        adapter = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear")
    trainer = Counting(
        AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32),
        args=config,
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(job["model"]),
        callbacks=[Clock()],
        peft_config=adapter,
    )
    trainer.train()
    return times, tokens[: len(times)], losses


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(job["threads"])
    times, tokens, losses = {"bridgekd": bridgekd, "trl": train_with_trl}[job["who"]](job)
    found = {
        "wall": [t[0] for t in times],
        "cpu": [t[1] for t in times],
        "tokens": tokens,
        "losses": losses,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    Path(job["found"]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
