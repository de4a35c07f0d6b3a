"""Train the four base models of the sandbox on generic text (`make sandbox-models`, one hour).

The architecture is Lfm2 of transformers: of the architectures that we tried, its short convolutions
and attention learn copying fastest. The models are trained with the package's `fine_tune` and
stored in bf16. build_log.json beside this file has the time, tokens and losses of every training.
"""

import argparse
import json
import math
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Protocol

import torch
import transformers
from pretraining_corpus import (
    generate_assistant_corpus,
    generate_facts,
    generate_pairs,
    generate_student_corpus,
)
from transformers import Lfm2Config, Lfm2ForCausalLM, PreTrainedTokenizerFast
from world_tokenizer import make_tokenizer

from bridgekd.lm.training_job import TrainingJob
from bridgekd.lm.training_loop import fine_tune
from bridgekd.recipe import TrainOptions
from bridgekd.records import TrainingSequence

MODELS = Path(str(files("bridgekd.sandbox") / "models"))
LOG = Path(__file__).with_name("build_log.json")
CONV, ATTENTION = "conv", "full_attention"
SEED = 0


class HasShape(Protocol):
    """The architecture of a model."""

    @property
    def width(self) -> int: ...
    @property
    def inner(self) -> int: ...
    @property
    def layers(self) -> tuple[str, ...]: ...
    @property
    def n_heads(self) -> int: ...


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model: its shape, and the numbers of drill and text rows. It sees every row once."""

    width: int
    inner: int
    layers: tuple[str, ...]
    n_heads: int
    rows: Callable[[int, int], list[TrainingSequence]]
    n_rows: int
    learning_rate: float
    n_drills: int = 12_000


MODEL_SPECS = {
    "student": ModelSpec(40, 56, (CONV, ATTENTION), 2, generate_student_corpus, 50_000, 4e-3),
    "assistant-small": ModelSpec(
        64, 128, (CONV, ATTENTION, ATTENTION), 2, generate_assistant_corpus, 100_000, 3e-3
    ),
    "assistant-middle": ModelSpec(
        96, 192, (CONV, ATTENTION, CONV, ATTENTION), 4, generate_assistant_corpus, 100_000, 3e-3
    ),
    "assistant-large": ModelSpec(
        144,
        256,
        (CONV, ATTENTION, CONV, ATTENTION, ATTENTION),
        4,
        generate_assistant_corpus,
        60_000,
        2e-3,
    ),
}


def make_model(spec: HasShape, tokenizer: PreTrainedTokenizerFast, seed: int) -> Lfm2ForCausalLM:
    """Return an untrained model. Its weights have std 1/sqrt(width), because 0.02 is too small."""
    config = Lfm2Config(
        vocab_size=len(tokenizer),
        hidden_size=spec.width,
        intermediate_size=spec.inner,
        num_hidden_layers=len(spec.layers),
        num_attention_heads=spec.n_heads,
        num_key_value_heads=spec.n_heads,
        layer_types=list(spec.layers),
        conv_L_cache=6,  # a value is at most five words after its key
        block_auto_adjust_ff_dim=False,
        tie_word_embeddings=True,
        max_position_embeddings=tokenizer.model_max_length,
        initializer_range=1 / math.sqrt(spec.width),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(seed)
    return Lfm2ForCausalLM(config)


def train_base_model(
    name: str, output_dir: Path, *, n_rows: int | None = None, seed: int = SEED
) -> dict[str, object]:
    """Train the model `name`, write it to `output_dir/name`, and return its build log entry."""
    spec, started = MODEL_SPECS[name], time.monotonic()
    n_rows = n_rows or spec.n_rows
    tokenizer = make_tokenizer()
    n_drills = min(n_rows, spec.n_drills)
    drill = TrainOptions(
        learning_rate=spec.learning_rate, batch_size=16, lr_scheduler_type="constant"
    )
    text = TrainOptions(learning_rate=spec.learning_rate, batch_size=32)
    datasets = {
        "pairs": (generate_pairs(n_drills, seed), drill),
        "facts": (generate_facts(n_drills, seed), drill),
        "text": (spec.rows(n_rows, seed), text),
    }
    entry: dict[str, object] = {"learning_rate": spec.learning_rate, "seed": seed}
    with tempfile.TemporaryDirectory() as scratch:
        latest = Path(scratch, "start")
        make_model(spec, tokenizer, seed).save_pretrained(latest)
        tokenizer.save_pretrained(latest)
        for part, (rows, config) in datasets.items():
            folder, n_updates = Path(scratch, part), len(rows) // config.batch_size
            log = fine_tune(
                TrainingJob(
                    latest, rows, folder, config, n_updates=n_updates, seed=seed, device="cpu"
                )
            )
            lines = (folder / "training_log.jsonl").read_text().splitlines()
            losses = [json.loads(line)["loss"] for line in lines]
            entry[part] = {
                "rows": len(rows),
                "updates": n_updates,
                "tokens": log.n_tokens,
                "losses": [round(loss, 3) for loss in losses[:: max(1, len(losses) // 10)]],
                "last_loss": round(losses[-1], 4),
            }
            latest = folder
        n_parameters = _save_model(latest, output_dir / name, tokenizer)
    return {"parameters": n_parameters, **entry, "seconds": round(time.monotonic() - started)}


def _save_model(trained: Path, folder: Path, tokenizer: PreTrainedTokenizerFast) -> int:
    """Write the weights in bf16 and the tokenizer. Return the number of parameters."""
    shutil.rmtree(folder, ignore_errors=True)
    model = Lfm2ForCausalLM.from_pretrained(trained, dtype=torch.bfloat16)
    model.config.use_cache = True
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return int(model.num_parameters())


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the models that the command line names, or all four."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(MODEL_SPECS), help="models to train")
    parser.add_argument("--out", type=Path, default=MODELS)
    parser.add_argument("--rows", type=int, help="rows of text instead of the number of each spec")
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    path = LOG if options.out == MODELS else options.out / LOG.name
    log = json.loads(path.read_text()) if path.exists() else {}
    log["made_with"] = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
    }
    for name in options.names:
        log[name] = train_base_model(name, options.out, n_rows=options.rows, seed=options.seed)
        print(name, json.dumps(log[name]), flush=True)
        path.write_text(json.dumps(log, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
