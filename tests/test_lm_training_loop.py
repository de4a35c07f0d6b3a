"""The training loop: losses, counts, reproducible weights, best weights."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from bridgekd import lm
from bridgekd.errors import InputError
from bridgekd.lm import packing
from bridgekd.lm.load import load_model
from bridgekd.lm.packing import can_pack, supports_packing, verify_packing
from bridgekd.lm.tokenization import TokenizedSequence, tokenize_sequences, truncate_prompt
from bridgekd.lm.update_schedule import UpdateSchedule
from bridgekd.progress import ignore_progress
from bridgekd.recipe import LoraOptions, RuntimeOptions, TrainOptions
from bridgekd.records import Example, Message, Rationale, TargetSpan, TrainingSequence
from bridgekd.stages.training_examples import build_training_sequence
from bridgekd.targets import TARGET_FORMATS
from bridgekd.variants import VariantRef
from tiny_models import FAMILIES, write_tiny

EXAMPLE = Example("a", "Who holds the box ?", "Ann")
NAMES = ("Ann", "Bob", "the fox", "the dog", "Ann gives")
ROWS = [
    TrainingSequence(
        str(i),
        (Message("user", "Who holds " + "the box " * (i % 3 + 1) + "?"),),
        (
            TargetSpan(f"{NAMES[i % 5]} holds the red box .\n"),
            TargetSpan(f"Answer: {NAMES[i % 5]}", 2.0),
        ),
    )
    for i in range(10)
]
TRAIN = TrainOptions(
    batch_size=4, learning_rate=1e-2, warmup_ratio=0.0, lr_scheduler_type="constant"
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("base"), "lfm2", "word_level")


def tune(
    base, out, *, train=TRAIN, rows=ROWS, n_updates=6, seed=0, progress=ignore_progress, **kwargs
):
    job = lm.TrainingJob(
        base, rows, out, train, n_updates=n_updates, seed=seed, device="cpu", **kwargs
    )
    return lm.fine_tune(job, progress)


def metrics(out):
    return [json.loads(line) for line in (out / "training_log.jsonl").read_text().splitlines()]


def weights(folder):
    return load_file(folder / "model.safetensors")


def test_first_loss_equals_naive_loop(base, tmp_path):
    rows = ROWS[:4]
    tune(base, tmp_path, rows=rows, n_updates=1)
    local = lm.load_model(base, device="cpu")
    total = norm = 0.0
    for row in tokenize_sequences(local.tokenizer, rows):
        with torch.no_grad():
            logits = local.model(input_ids=torch.tensor([row.ids])).logits[0].double()
        logp = torch.log_softmax(logits, -1)
        for t in range(1, len(row.ids)):
            total -= row.weights[t] * float(logp[t - 1, row.ids[t]])
            norm += row.weights[t]
    assert math.isclose(metrics(tmp_path)[0]["loss"], total / norm, rel_tol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_micro_batch_changes_no_loss(tmp_path, family):
    base = write_tiny(tmp_path / "base", family, "word_level")
    for tokens in (8, 60, None):
        log = tune(base, tmp_path / str(tokens), runtime=RuntimeOptions(micro_batch_tokens=tokens))
        assert log.micro_tokens == tokens
    whole = [line["loss"] for line in metrics(tmp_path / "None")]
    for tokens in (8, 60):
        losses = [line["loss"] for line in metrics(tmp_path / str(tokens))]
        assert losses == pytest.approx(whole, rel=1e-3)


def test_same_training_gives_same_bytes(base, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        tune(base, tmp_path / name, seed=seed)
    data = {n: (tmp_path / n / "model.safetensors").read_bytes() for n in "abc"}
    assert data["a"] == data["b"] != data["c"]


def test_model_learns_text_and_its_end(base, tmp_path):
    rows = ROWS[:1]
    tune(base, tmp_path, rows=rows, n_updates=80)
    local = lm.load_model(tmp_path, device="cpu")
    (text,) = lm.generate_texts(local, [rows[0].prompt], max_new_tokens=40, batch_size=1)
    assert text.split() == ["Ann", "holds", "the", "red", "box", ".", "Answer:", "Ann"]


def test_exactly_n_updates_are_made_and_counted(base, tmp_path):
    steps = []
    log = tune(
        base, tmp_path, n_updates=7, progress=lambda *step: steps.append(step), label="train it"
    )
    assert steps == [("train it", k, 7) for k in range(8)]
    assert [line["update"] for line in metrics(tmp_path)] == list(range(1, 8))
    assert (log.n_updates, log.best_update, log.n_rows, log.n_too_long) == (7, 7, 10, 0)
    local = lm.load_model(base, device="cpu")
    lengths = [len(row.ids) for row in tokenize_sequences(local.tokenizer, ROWS)]
    assert log.n_tokens - 2 * sum(lengths) in range(8 * min(lengths), 8 * max(lengths) + 1)


def test_earliest_best_weights_are_saved(base, tmp_path):
    values = iter([0.1, 0.7, 0.7, 0.2])
    seen = []

    def validate(local, longest_target):
        assert not local.model.training
        seen.append({k: v.clone() for k, v in local.model.state_dict().items()})
        return next(values)

    log = tune(base, tmp_path / "a", n_updates=8, validate=validate)
    assert log.validations == ((2, 0.1), (4, 0.7), (6, 0.7), (8, 0.2))
    assert log.best_update == 4
    assert all(torch.equal(v, seen[1][k]) for k, v in weights(tmp_path / "a").items())
    lines = {line["update"]: line["validation"] for line in metrics(tmp_path / "a")}
    assert lines[4] == 0.7 and lines[5] is None


def test_evaluation_does_not_change_training(base, tmp_path):
    calls = []

    def validate(local, longest_target):
        lm.generate_texts(local, [row.prompt for row in ROWS], max_new_tokens=3, batch_size=4)
        calls.append(1)
        return len(calls)  # always better, so the last weights are saved

    tune(base, tmp_path / "evaluated", validate=validate)
    tune(base, tmp_path / "not")
    evaluated, plain = weights(tmp_path / "evaluated"), weights(tmp_path / "not")
    assert all(torch.equal(evaluated[name], plain[name]) for name in plain)


def test_too_long_rows_are_dropped_and_counted(base, tmp_path):
    long = TrainingSequence("long", ROWS[0].prompt, (TargetSpan("the box " * 60),))
    log = tune(
        base, tmp_path, rows=[*ROWS, long], train=TRAIN.model_copy(update={"max_length": 60})
    )
    assert (log.n_rows, log.n_too_long) == (10, 1)


def test_rows_longer_than_positions_are_dropped(base, tmp_path):
    long = TrainingSequence("long", ROWS[0].prompt, (TargetSpan("the box " * 300),))
    assert tune(base, tmp_path, rows=[*ROWS, long], n_updates=1).n_too_long == 1


def test_no_row_left_raises_error(base, tmp_path):
    with pytest.raises(
        InputError, match=r"none of 10 rows has at most 8 tokens\. Raise max_length"
    ):
        tune(base, tmp_path, train=TRAIN.model_copy(update={"max_length": 8}))
    with pytest.raises(InputError, match="train: there are no rows to train on"):
        tune(base, tmp_path, rows=[])


@pytest.mark.parametrize("family", FAMILIES)
def test_adapter_is_trained_saved_loaded_and_trained_further(tmp_path, family):
    base = write_tiny(tmp_path / "base", family, "word_level")
    before = weights(base)
    tune(base, tmp_path / "one", lora=LoraOptions(r=2))
    tune(tmp_path / "one", tmp_path / "two", lora=LoraOptions(r=2))
    one, two = (load_file(tmp_path / n / "adapter_model.safetensors") for n in ("one", "two"))
    assert one.keys() == two.keys() and not (tmp_path / "two" / "model.safetensors").exists()
    assert any(not torch.equal(one[name], two[name]) for name in one)
    assert metrics(tmp_path / "two")[0]["loss"] < metrics(tmp_path / "one")[0]["loss"]
    assert all(torch.equal(v, before[k]) for k, v in weights(base).items())
    settings = json.loads((tmp_path / "two" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(base)


def test_folder_has_only_model_and_log(base, tmp_path):
    tune(base, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "training_log.jsonl",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert json.loads((tmp_path / "config.json").read_text()).get("use_cache", True)


class LimitedMemory:
    """Memory that holds at most `n_tokens` tokens of a micro-batch."""

    def __init__(self, n_tokens):
        self.n_tokens, self.refused = n_tokens, 0

    def __call__(self, module, arguments):
        if arguments[0].numel() > self.n_tokens and torch.is_grad_enabled():
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB\nmore")


@pytest.fixture
def scarce():
    """Yield a memory that every embedding layer checks before it runs."""
    memory = LimitedMemory(10**9)

    def hook(module, arguments):
        if isinstance(module, torch.nn.Embedding):
            memory(module, arguments)

    handle = torch.nn.modules.module.register_module_forward_pre_hook(hook)
    yield memory
    handle.remove()


@pytest.mark.parametrize("family", ["lfm2", "llama"])
def test_out_of_memory_halves_micro_batch_and_changes_no_loss(tmp_path, scarce, family):
    base = write_tiny(tmp_path / "base", family, "word_level")
    tune(base, tmp_path / "rich")
    scarce.n_tokens = 40
    log = tune(base, tmp_path / "poor")
    assert log.n_halvings == scarce.refused > 0 and log.micro_tokens <= 70
    losses = [[line["loss"] for line in metrics(tmp_path / n)] for n in ("rich", "poor")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_too_little_memory_for_one_row_raises_error_at_the_end(base, tmp_path, scarce):
    scarce.n_tokens = 5
    with pytest.raises(InputError, match=r"not hold one row of \d+ tokens \(CUDA out of memory"):
        tune(base, tmp_path)


@pytest.mark.parametrize("family", ["lfm2", "llama"])
def test_gradient_checkpointing_changes_no_loss(tmp_path, scarce, family):
    base = write_tiny(tmp_path / "base", family, "word_level")

    class Once(LimitedMemory):
        def __call__(self, module, arguments):
            if not self.refused and len(arguments[0]) == 1:
                super().__call__(module, arguments)

    tune(base, tmp_path / "rich")
    scarce.n_tokens, scarce.__class__ = 0, Once
    log = tune(base, tmp_path / "poor", runtime=RuntimeOptions(micro_batch_tokens=8))
    assert log.gradient_checkpointing and log.n_halvings == 0
    losses = [[line["loss"] for line in metrics(tmp_path / n)] for n in ("rich", "poor")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_too_long_rows_lose_start_of_prompt(base, tmp_path):
    long = TrainingSequence("long", (Message("user", "the box " * 90),), ROWS[0].spans)
    too_long = TrainingSequence("too_long", ROWS[0].prompt, (TargetSpan("the box " * 90),))
    cut = TRAIN.model_copy(update={"max_length": 60, "on_overflow": "truncate_prompt"})
    log = tune(base, tmp_path, rows=[*ROWS, long, too_long], train=cut)
    assert (log.n_rows, log.n_truncated, log.n_too_long) == (11, 1, 1)


def test_truncated_row_keeps_bos_and_target():
    row = TokenizedSequence((1, 5, 6, 7, 8, 9), (0.0, 0.0, 0.0, 0.0, 1.0, 2.0), 4)
    assert truncate_prompt(row, 5, 1) == TokenizedSequence(
        (1, 6, 7, 8, 9), (0.0, 0.0, 0.0, 1.0, 2.0), 3
    )
    assert truncate_prompt(row, 5, None) == TokenizedSequence(
        (5, 6, 7, 8, 9), (0.0, 0.0, 0.0, 1.0, 2.0), 3
    )
    assert truncate_prompt(row, 3, 1) is None


def test_training_ends_without_gain(base, tmp_path):
    values = iter([0.1, 0.7, 0.6, 0.7, 0.9, 0.9])
    patient = TRAIN.model_copy(update={"early_stopping_patience": 2, "n_evaluations": 6})
    steps = []
    log = tune(
        base, tmp_path, train=patient, n_updates=12,
        validate=lambda local, longest_target: next(values),
        progress=lambda *step: steps.append(step),
    )  # fmt: skip
    assert (log.n_updates, log.best_update) == (8, 4) and len(log.validations) == 4
    assert steps[0][1:] == (0, 12) and steps[-1][1:] == (8, 8)


@pytest.fixture
def pack_small(monkeypatch):
    """Pack the rows of models for which it does not pay."""
    monkeypatch.setattr(packing, "MIN_WIDTH", 0)


def test_small_models_are_padded_on_a_cpu(base, tmp_path):
    assert not tune(base, tmp_path).padding_free


@pytest.mark.parametrize("lora", [None, LoraOptions(r=2)], ids=["all weights", "lora"])
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_packed_rows_have_losses_and_gradients_of_padded_rows(pack_small, tmp_path, family, lora):
    base = write_tiny(tmp_path / "base", family, "word_level")
    lines = {}
    for attention, padding_free in (("sdpa", True), ("eager", False)):
        runtime = RuntimeOptions(attn_implementation=attention, micro_batch_tokens=60)
        log = tune(base, tmp_path / attention, lora=lora, runtime=runtime)
        assert log.padding_free == padding_free
        lines[attention] = metrics(tmp_path / attention)
    for name in ("loss", "grad_norm"):
        padded = [line[name] for line in lines["eager"]]
        assert [line[name] for line in lines["sdpa"]] == pytest.approx(padded, rel=1e-3)


def test_rows_longer_than_a_window_are_not_packed(pack_small, tmp_path):
    local = lm.load_model(write_tiny(tmp_path, "qwen2", "word_level"), device="cpu")
    rows = tokenize_sequences(local.tokenizer, ROWS)
    longest = max(len(row.ids) for row in rows)
    local.model.config.sliding_window = longest + 10
    assert can_pack(local, rows)
    local.model.config.sliding_window = longest - 1
    assert not can_pack(local, rows)


def test_a_model_that_does_not_pass_row_ends_to_its_attention_is_not_packed(pack_small, tmp_path):
    local = lm.load_model(write_tiny(tmp_path, "llama", "word_level"), device="cpu")
    rows = tokenize_sequences(local.tokenizer, ROWS)
    assert can_pack(local, rows)

    def forget(_layer, arguments, named):
        return arguments, {k: v for k, v in named.items() if k != "cu_seq_lens_q"}

    for layer in local.model.model.layers:
        layer.register_forward_pre_hook(forget, with_kwargs=True)
    assert not can_pack(local, rows)


def test_convolutions_and_models_without_positions_are_not_packed(tmp_path):
    for family in ("lfm2", "bloom"):
        local = lm.load_model(write_tiny(tmp_path / family, family, "word_level"), device="cpu")
        assert not supports_packing(local)
    conv = lm.load_model(tmp_path / "lfm2", device="cpu")
    assert not verify_packing(conv, tokenize_sequences(conv.tokenizer, ROWS))


def test_missing_tracker_raises_error(base, tmp_path):
    with pytest.raises(InputError, match=r"runtime\.report_to: 'nothing' is not a tracker"):
        tune(base, tmp_path, runtime=RuntimeOptions(report_to=("nothing",)))
    with pytest.raises(InputError, match=r"'clearml' is not installed\. Install it with pip"):
        tune(base, tmp_path, runtime=RuntimeOptions(report_to=("clearml",)))


def test_quantization_without_library_raises_error(base, tmp_path):
    with pytest.raises(InputError, match="needs bitsandbytes, which is not installed"):
        tune(base, tmp_path, lora=LoraOptions(quantize="4bit"))


def test_eval_loss_equals_training_loss(base, tmp_path):
    tune(base, tmp_path, rows=ROWS[:4], n_updates=1)
    local = lm.load_model(base, device="cpu")
    with pytest.raises(InputError, match="None of the 4 held-out rows has at most 2 tokens"):
        lm.compute_eval_loss(local, ROWS[:4], 2)
    assert lm.compute_eval_loss(local, ROWS[:4], 1024) == pytest.approx(
        metrics(tmp_path)[0]["loss"]
    )


def test_losses_of_chunks_sum_to_the_loss_of_the_rationale(base):
    """Chunk-wise training (arXiv 2505.18642) with even chunks and all weights 1."""
    local = lm.load_model(base, device="cpu")
    ref = VariantRef.model_validate({"name": "chunks", "splitter": "even", "n_chunks": 3})
    text = "the quick brown fox holds the red box and gives the box to Ann ."

    def compute_nll(ref):
        settings = TARGET_FORMATS.resolve(ref)
        options = TARGET_FORMATS.parse_options(settings)
        rationale = Rationale("a", text, "Ann", "teacher", True)
        rows = TARGET_FORMATS.load(settings).build(EXAMPLE, rationale, "Ann", options)
        sequences = [build_training_sequence(row, 1.0) for row in rows]
        tokenized = tokenize_sequences(local.tokenizer, sequences)
        n_tokens = sum(sum(row.weights) for row in tokenized)
        return len(rows), lm.compute_eval_loss(local, sequences, 1024) * n_tokens

    (n_rows, total), (n_chunks, sum_of_chunks) = map(compute_nll, (VariantRef(name="joint"), ref))
    assert (n_rows, n_chunks) == (1, 3)
    assert sum_of_chunks == pytest.approx(total, rel=1e-5)


def test_parts_of_a_training_go_on_with_its_order_of_rows(base):
    rows = tokenize_sequences(load_model(base, device="cpu").tokenizer, ROWS)

    def list_rows(**parts):
        schedule = UpdateSchedule(rows, batch_size=4, seed=3, **parts)
        return [schedule.get_rows(k).tolist() for k in range(len(schedule))]

    halves = list_rows(n_updates=3), list_rows(n_updates=4, n_updates_before=3)
    assert [*halves[0], *halves[1]] == list_rows(n_updates=7)
