"""The local models of a recipe: assistant, student, their trainings, and where they run."""

import math
from typing import Literal

from pydantic import Field, model_validator

from bridgekd.errors import InputError
from bridgekd.recipe.field_types import (
    MAX_BATCH_ROWS,
    MAX_COUNT,
    MAX_SEQUENCE_TOKENS,
    MAX_TIMEOUT_S,
    BaseUrl,
    CountOrPercent,
    FrozenModel,
    MaxNewTokens,
    VariableName,
)
from bridgekd.variants import VariantRef

BackendName = Literal["transformers", "server"]
Role = Literal["assistant", "student"]
MAX_UPDATES = 10**7


class LoraOptions(FrozenModel):
    """LoRA of PEFT. The defaults are those of its authors for language models.

    Attributes:
        quantize: Bits of the frozen base model during training (QLoRA, nf4 for 4 bits). Needs
            bitsandbytes. The result is an adapter for the base model without quantization.
        r: Rank of the update matrices.
        alpha: Scaling factor.
        dropout: Dropout probability of the LoRA layers.
        target_modules: Modules that get an adapter.
    """

    quantize: Literal["4bit", "8bit"] | None = None
    r: int = Field(16, ge=1, le=2**14)
    alpha: int = Field(32, ge=1, le=2**20)
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: str | tuple[str, ...] = "all-linear"


class TrainOptions(FrozenModel):
    """One training. Early stopping keeps the weights of the best evaluation.

    Attributes:
        epochs: Passes over as many rows as the stage's reference size, unless `updates` is set.
        updates: Number of optimizer updates.
        learning_rate: Peak learning rate.
        batch_size: Sequences per optimizer update.
        warmup_ratio: Fraction of the updates in which the learning rate increases.
        lr_scheduler_type: Learning rate schedule after the warmup.
        weight_decay: Weight decay of the optimizer.
        max_length: Maximum tokens of a row.
        on_overflow: What happens to longer rows: `drop` removes and counts them, `truncate_prompt`
            removes the start of the prompt. A target is never truncated.
        n_evaluations: Number of evaluations. They are evenly spaced, and the last is at the end.
        holdout_size: Part of the training rows for evaluation. If set, evaluations measure the loss
            on these rows instead of the greedy accuracy on the validation split.
        early_stopping_patience: Number of evaluations in a row without improvement that end the
            training. None: the training runs to its last update.
    """

    epochs: float = Field(3.0, gt=0, le=10_000)
    updates: int | None = Field(None, ge=1, le=MAX_UPDATES)
    learning_rate: float = Field(1e-4, gt=0, le=100)
    batch_size: int = Field(32, ge=1, le=MAX_BATCH_ROWS)
    warmup_ratio: float = Field(0.05, ge=0, lt=1)
    lr_scheduler_type: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: float = Field(0.0, ge=0, le=100)
    max_length: int = Field(1024, ge=8, le=MAX_SEQUENCE_TOKENS)
    on_overflow: Literal["drop", "truncate_prompt"] = "drop"
    n_evaluations: int = Field(4, ge=1, le=1000)
    holdout_size: CountOrPercent | None = None
    early_stopping_patience: int | None = Field(None, ge=1, le=1000)

    def compute_n_updates(self, n_reference: int) -> int:
        """Return the number of optimizer updates for `n_reference` rows per epoch.

        Raises InputError above MAX_UPDATES.
        """
        n_updates = self.updates or max(1, math.ceil(n_reference * self.epochs / self.batch_size))
        if n_updates > MAX_UPDATES:
            raise InputError(
                f"{self.epochs:g} epochs of {n_reference:,} rows in batches of {self.batch_size:,} "
                f"are {n_updates:,} updates. The maximum is {MAX_UPDATES:,}. Lower epochs."
            )
        return n_updates


Precision = Literal["auto", "float32", "bfloat16"]


class RuntimeOptions(FrozenModel):
    """Speed and memory of the local models. No key is part of a fingerprint.

    Attributes:
        assistant_batch_size: Sequences per batch when the assistant generates or scores. It is
            halved when memory runs out. Default: 64, or fewer if free memory does not allow it.
        student_batch_size: The same for the student.
        micro_batch_tokens: Maximum tokens of a training micro-batch, padding included. It is halved
            when memory runs out. At one row, gradient checkpointing starts. Default: a whole
            update, or what free memory allows.
        num_processes: Number of training processes, one per GPU, that share every update.
        precision: Number format of the computations. bfloat16 halves the memory of weights and is
            about twice as fast on a CPU with AVX512-BF16 or AMX; weights that are trained stay
            float32. Default: bfloat16 on a CUDA device that supports it, and on such a CPU for the
            frozen weights of a LoRA training that are stored in 16 bits, else float32.
        attn_implementation: Attention of transformers, such as flash_attention_2.
        checkpoint_interval_s: Seconds between checkpoints, from which a killed training resumes.
        report_to: Experiment trackers of transformers, such as wandb or tensorboard.
    """

    assistant_batch_size: int | None = Field(None, ge=1, le=MAX_BATCH_ROWS)
    student_batch_size: int | None = Field(None, ge=1, le=MAX_BATCH_ROWS)
    micro_batch_tokens: int | None = Field(None, ge=8, le=MAX_COUNT)
    num_processes: int = Field(1, ge=1, le=64)
    precision: Precision = "auto"
    attn_implementation: str | None = None
    checkpoint_interval_s: float = Field(300.0, ge=0, le=MAX_TIMEOUT_S)
    report_to: tuple[str, ...] = ()

    def get_batch_size(self, role: Role) -> int | None:
        """Return the batch size of generation and scoring for a model of this role."""
        return self.assistant_batch_size if role == "assistant" else self.student_batch_size


class AssistantServerOptions(FrozenModel):
    """An OpenAI-compatible server of the assistant. No key changes a result.

    Attributes:
        command: Command that starts the server for each stage. {model} is the folder or Hub id to
            serve, {port} a free port, and {name} the model name to serve.
        base_url: Address of a server that you run, instead of `command`.
        api_key_env: Environment variable with the API key. Default: the server needs no key.
        max_concurrent_requests: Maximum number of open requests.
        timeout_s: Timeout of one attempt in seconds.
        startup_timeout_s: Maximum seconds from the start of `command` to the first answer.
        max_attempts: Maximum number of attempts per request.
    """

    command: str | None = None
    base_url: BaseUrl | None = None
    api_key_env: VariableName | None = None
    max_concurrent_requests: int = Field(64, ge=1, le=1024)
    timeout_s: float = Field(300.0, gt=0, le=MAX_TIMEOUT_S)
    startup_timeout_s: float = Field(900.0, gt=0, le=MAX_TIMEOUT_S)
    max_attempts: int = Field(5, ge=1, le=20)

    @model_validator(mode="after")
    def _check_command_or_url(self) -> "AssistantServerOptions":
        if (self.command is None) == (self.base_url is None):
            raise ValueError(
                "Give either a command, such as 'vllm serve {model} --port {port}', or the "
                "base_url of a server that you run."
            )
        if "--api-key" in (self.command or ""):
            raise ValueError(
                "The command contains a key. Put it into a variable that the server reads, such as "
                "VLLM_API_KEY, and name that variable in api_key_env."
            )
        for name in ("model", "port"):
            if self.command is not None and f"{{{name}}}" not in self.command:
                raise ValueError(
                    f"The command has no {{{name}}}. Add it where the server takes the {name}."
                )
        return self


class AssistantOptions(FrozenModel):
    """The mid-size local model (teaching assistant, TA). It is trained in this process.

    Attributes:
        model: Folder or Hub id of the base model.
        revision: Revision of a Hub id. Default: main.
        lora: LoRA. Default: all weights are trained.
        warm_up_size: Rows with gold answers for the warm-up. 0: no warm-up, for a pool without gold
            answers.
        warm_up_train: Training of the warm-up.
        train: Training on teacher rationales.
        answer_weight: Weight of the answer in the loss (lambda of the two-part loss).
        max_new_tokens: Maximum tokens of a generated text. `auto`: 1.5 times the longest target of
            the model's training, or 512 for a model that was not trained on the task.
        generation_backend: Where the assistant generates: this process or a server.
        scoring_backend: Where log-probabilities are computed.
        server: The server, if a backend is `server`.
    """

    model: str
    revision: str | None = None
    lora: LoraOptions | None = None
    warm_up_size: CountOrPercent = "2%"
    warm_up_train: TrainOptions = TrainOptions()
    train: TrainOptions = TrainOptions()
    answer_weight: float = Field(1.0, ge=0, le=1000)
    max_new_tokens: MaxNewTokens = "auto"
    generation_backend: BackendName = "transformers"
    scoring_backend: BackendName = "transformers"
    server: AssistantServerOptions | None = None

    @model_validator(mode="after")
    def _check_server_is_set(self) -> "AssistantOptions":
        for key in ("generation_backend", "scoring_backend"):
            if getattr(self, key) == "server" and self.server is None:
                raise ValueError(
                    f"{key}: server needs assistant.server. Give it a command or a base_url."
                )
        return self


class ChunkOptions(FrozenModel):
    """Chunks of a rationale.

    Attributes:
        splitter: A chunk is a number of `sentences`, where a line is one, too, or of words
            (`even`). The chunks of a rationale have about the same number.
        n_chunks: Maximum number of chunks of a rationale.
    """

    splitter: Literal["sentences", "even"] = "sentences"
    n_chunks: int = Field(4, ge=1, le=1000)


class StudentOptions(FrozenModel):
    """The small local model that is deployed.

    Attributes:
        model: Folder or Hub id of the base model.
        revision: Revision of a Hub id. Default: main.
        lora: LoRA. Default: all weights are trained.
        instruction_data: Instruction data set (JSONL file or Hub id). None: no instruction tuning.
        instruction_train: Training on the instruction data.
        train: Training on rationales.
        rationales: Whose rationales a method with an assistant trains on: those of the `assistant`,
            the teacher's kept ones (`teacher`), or `both`.
        selector: Which of a question's rationales are kept, in a method with an assistant.
        shorten: Chunks that are left out if the assistant finds the answer without them, in a
            method with an assistant. Default: all rationales stay as they are.
        target_format: The training rows of a rationale. `joint`: rationale, then answer.
            `multi_task`: rationale and answer are two separate tasks. `chunks`: a row per chunk.
        answer_weight: Weight of the answer in the loss.
        mixture: Shares of the domains in the rows of `train`. Default: those of the rationales.
        order: Order of the rows in an epoch of `train`. `shuffled`, or `easy_first`: short targets
            first.
        max_new_tokens: Maximum tokens of a generated text. `auto`: 1.5 times the longest target of
            the model's training, or 512 for a model that was not trained on the task.
    """

    model: str
    revision: str | None = None
    lora: LoraOptions | None = None
    instruction_data: str | None = None
    instruction_train: TrainOptions = TrainOptions()
    train: TrainOptions = TrainOptions()
    rationales: Literal["assistant", "teacher", "both"] = "assistant"
    selector: VariantRef = VariantRef(name="all")
    shorten: ChunkOptions | None = None
    target_format: VariantRef = VariantRef(name="joint")
    answer_weight: float = Field(1.0, ge=0, le=1000)
    mixture: VariantRef = VariantRef(name="as_is")
    order: VariantRef = VariantRef(name="shuffled")
    max_new_tokens: MaxNewTokens = "auto"
