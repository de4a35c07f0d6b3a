"""Wrong rationales with negative weights: loss, updates, rows, and the two stages of REDI."""

import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from bridgekd import lm
from bridgekd.io.artifact_store import Artifact
from bridgekd.io.row_files import write_rows
from bridgekd.lm.objectives import TokenBatch
from bridgekd.lm.objectives.nll import compute_nll
from bridgekd.lm.objectives.signed_nll import SignedNLLOptions, compute_signed_nll
from bridgekd.lm.tokenization import TokenizedSequence, tokenize_sequences
from bridgekd.lm.update_schedule import UpdateSchedule
from bridgekd.methods.redi import REDIOptions, build_redi_settings
from bridgekd.recipe import RuntimeOptions, TrainOptions
from bridgekd.records import Example, Message, Rationale, TargetSpan, TrainingSequence
from bridgekd.stages.row_settings import RationaleRows
from bridgekd.stages.signed_rows import build_signed_rows
from bridgekd.stages.train import TrainSettings
from bridgekd.variants import VariantSettings
from tiny_models import write_tiny

TRAIN = TrainOptions(
    batch_size=2, learning_rate=1e-2, warmup_ratio=0.0, lr_scheduler_type="constant"
)
SIGNED = VariantSettings(name="signed_nll", options=SignedNLLOptions().model_dump())


def make_row(i, text, **fields):
    prompt = (Message("user", f"Who holds {'the box ' * (i % 3 + 1)}?"),)
    return TrainingSequence(str(i), prompt, (TargetSpan(f"{text} .\n"),), **fields)


RIGHT = [
    make_row(i, text, mean_weight=1.0)
    for i, text in enumerate(("Ann holds", "Bob gives the box", "the fox jumps over", "the dog"))
]
PAIRS = [
    row
    for i, right in enumerate(RIGHT)
    for row in (
        replace(right, group=str(i)),
        make_row(i, "the quick brown fox holds", mean_weight=-0.8, group=str(i)),
    )
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("base"), "llama", "word_level")


def tune(base, out, rows, n_updates=1, **kwargs):
    """Train and return (the log of the training, the loss of every logged update)."""
    job = lm.TrainingJob(
        base, rows, out, TRAIN, n_updates=n_updates, seed=0, device="cpu", **kwargs
    )
    log = lm.fine_tune(job)
    lines = (out / "training_log.jsonl").read_text().splitlines()
    return log, [json.loads(line)["loss"] for line in lines]


def make_batch(weights, losses=(1.0, 1.0, 2.0, 2.0)):
    """Return one token of each loss: of two tokens of the vocabulary the target is the first."""
    p = torch.tensor(losses).neg().exp()
    n = len(losses)
    return TokenBatch(
        torch.stack([p, 1 - p], dim=1).log().requires_grad_(), torch.zeros(n, dtype=torch.long),
        torch.tensor(weights), torch.arange(n) // 2,
    )  # fmt: skip


# Right and wrong text of two tokens each, alpha 0.8: arXiv 2505.24850, section 3.2, by hand.
WEIGHTS = [0.5, 0.5, -0.4, -0.4]


@pytest.mark.parametrize(
    "compute", [compute_nll, lambda b: compute_signed_nll(b, SignedNLLOptions(min_weight=-1))]
)
def test_the_loss_is_the_right_mean_minus_alpha_times_the_wrong_one(compute):
    batch = make_batch(WEIGHTS)
    normalizer = sum(w for w in WEIGHTS if w > 0)
    assert float(compute(batch).detach()) / normalizer == pytest.approx(1.0 - 0.8 * 2.0)


def test_the_gradient_of_a_wrong_text_has_the_opposite_sign():
    signed, plain = make_batch(WEIGHTS), make_batch([0.5, 0.5, 0.4, 0.4])
    for batch in (signed, plain):
        compute_nll(batch).backward()
    assert torch.equal(signed.logits.grad[:2], plain.logits.grad[:2])
    assert torch.equal(signed.logits.grad[2:], -plain.logits.grad[2:])
    assert plain.logits.grad.abs().min() > 0


def test_an_unlearned_token_has_no_gradient_beyond_its_bound_and_a_learned_one_has():
    batch = make_batch([1.0, -0.05, -0.05], (12.0, 12.0, 9.0))
    loss = compute_signed_nll(batch, SignedNLLOptions(max_nll=10))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(12 - 0.05 * (10 + 9), abs=1e-3)
    assert [bool(row.any()) for row in batch.logits.grad] == [True, False, True]


def test_no_weight_is_below_its_bound():
    loss = compute_signed_nll(make_batch([1.0, -0.5], (1.0, 2.0)), SignedNLLOptions())
    assert float(loss.detach()) == pytest.approx(1.0 - 0.1 * 2.0)


def test_first_loss_equals_naive_loop(base, tmp_path):
    rows = PAIRS[:4]
    _, (loss,) = tune(base, tmp_path, rows)
    local = lm.load_model(base, device="cpu")
    expected = 0.0
    for row, tokens in zip(rows, tokenize_sequences(local.tokenizer, rows), strict=True):
        with torch.no_grad():
            logits = local.model(input_ids=torch.tensor([tokens.ids])).logits[0].double()
        logp = torch.log_softmax(logits, -1)
        n = range(tokens.n_prompt, len(tokens.ids))
        mean = -sum(float(logp[t - 1, tokens.ids[t]]) for t in n) / len(n)
        expected += row.mean_weight * mean / 2  # two pairs
    assert math.isclose(loss, expected, rel_tol=1e-5)


def test_the_micro_batch_changes_no_loss(base, tmp_path):
    losses = [
        tune(
            base, tmp_path / str(n), PAIRS, 3, objective=SIGNED,
            runtime=RuntimeOptions(micro_batch_tokens=n),
        )[1]
        for n in (None, 8)
    ]  # fmt: skip
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_group_without_its_learned_row_is_dropped(base, tmp_path):
    long = make_row(0, "the box " * 600, mean_weight=1.0, group="0")
    log, _ = tune(base, tmp_path, [long, *PAIRS[1:4]])
    assert (log.n_rows, log.n_too_long) == (2, 2)


@given(
    names=st.lists(st.sampled_from(["", "a", "b", "c"]), min_size=1, max_size=9),
    n_processes=st.integers(1, 3), seed=st.integers(0, 9),
)  # fmt: skip
def test_rows_of_a_group_share_an_update(names, n_processes, seed):
    rows = [TokenizedSequence((1, 2, *[3] * i), (0.0, 1.0 - i, *[0.5] * i), 1) for i in range(9)]
    rows = rows[: len(names)]
    schedule = UpdateSchedule(
        rows, batch_size=2, n_updates=4, seed=seed, groups=names, n_processes=n_processes
    )
    shards = [schedule[i] for i in range(len(schedule))]
    for k in range(4):
        update = shards[k * n_processes : (k + 1) * n_processes]
        dealt = [row for shard in update for row in shard.rows]
        for i in dealt:
            mates = {j for j, name in enumerate(names) if name and name == names[i]} or {i}
            assert mates <= set(dealt) and dealt.count(i) in (1, 2)
        positive = sum(w for i in dealt for w in rows[i].weights if w > 0)
        assert {shard.weight for shard in update} == {positive}
        tokens = schedule.count_tokens_until(k + 1) - schedule.count_tokens_until(k)
        assert tokens == sum(len(rows[i].ids) for i in dealt)


@pytest.fixture
def artifacts(tmp_path):
    """A pool, kept rationales of three questions, and dropped ones of two."""
    pool = [Example(i, f"Who holds box {i}?", "(1)", domain="d") for i in "abc"]
    kept = [Rationale(i, f"Ann holds {i}.", "1", "assistant", True) for i in "abc"]
    dropped = [
        Rationale("a", "Bob holds a.", "2", "teacher", False, "wrong answer: 2, not 1"),
        Rationale("a", "Bob holds a.", "2", "assistant", False, "wrong answer: 2, not 1"),
        Rationale("a", "Tim holds a.", "3", "assistant", False, "wrong answer: 3, not 1"),
        Rationale("b", "Tim.", "", "assistant", False, "no answer"),
        Rationale("b", "Ann holds b.", "2", "assistant", False, "wrong answer: 2, not 1"),
        Rationale("c", "Tim holds c.", "3", "assistant", False, "wrong answer: 3, not 1"),
    ]
    for name, rows in (("right", kept), ("wrong", dropped)):
        (tmp_path / name).mkdir()
        write_rows(tmp_path / name / "rationales.parquet", Rationale, rows)
    write_rows(tmp_path / "pool.parquet", Example, pool)
    return [Artifact("x", name, tmp_path / name) for name in (".", "right", "wrong")]


def test_correct_and_wrong_rationales_of_a_question_are_a_group(artifacts):
    pool, right, wrong = artifacts
    rows, n_wrong = build_signed_rows(
        pool, [right], [wrong], VariantSettings(name="joint"), 1.0, 0.8
    )
    assert [(r.spans[0].text, r.spans[1].text, r.mean_weight, r.group) for r in rows] == [
        ("Ann holds a.\n", "Answer: (1)", 1.0, "0"),
        ("Bob holds a.\n", "Answer: 2", -0.4, "0"),
        ("Tim holds a.\n", "Answer: 3", -0.4, "0"),
        ("Ann holds c.\n", "Answer: (1)", 1.0, "2"),
        ("Tim holds c.\n", "Answer: 3", -0.8, "2"),
    ]
    assert n_wrong == 4


def test_without_wrong_rationales_all_correct_ones_are_rows(artifacts):
    pool, right, _ = artifacts
    rows, n_wrong = build_signed_rows(
        pool, [right], [], VariantSettings(name="multi_task"), 1.0, 0.8
    )
    assert (len(rows), {row.mean_weight for row in rows}, n_wrong) == (6, {1.0}, 0)


def test_alpha_0_is_plain_training_bit_for_bit(base, tmp_path, artifacts):
    pool, right, wrong = artifacts
    rows, _ = build_signed_rows(pool, [right], [wrong], VariantSettings(name="joint"), 1.0, 0.0)
    plain = [replace(row, group="") for row in rows]
    tune(base, tmp_path / "signed", rows, 3, objective=SIGNED)
    tune(base, tmp_path / "plain", plain, 3)
    other, _ = build_signed_rows(pool, [right], [wrong], VariantSettings(name="joint"), 1.0, 0.8)
    tune(base, tmp_path / "other", other, 3, objective=SIGNED)
    signed, plain, other = (
        load_file(tmp_path / n / "model.safetensors") for n in ("signed", "plain", "other")
    )
    assert all(torch.equal(signed[name], plain[name]) for name in plain)
    assert not all(torch.equal(other[name], plain[name]) for name in plain)


SETTINGS = TrainSettings(
    role="student", rows=RationaleRows(target_format="joint", answer_weight=1.0),
    objective=VariantSettings(name="nll"), train=TrainOptions(learning_rate=5e-5), lora=None,
    max_new_tokens=8, seed=0,
)  # fmt: skip


@given(n=st.integers(2, 5000), fraction=st.floats(0.01, 0.99), n_parts=st.integers(1, 7))
def test_parts_of_a_training_have_its_updates(n, fraction, n_parts):
    settings = SETTINGS.model_copy(update={"train": TrainOptions(updates=n + n_parts)})
    first, second = build_redi_settings(settings, REDIOptions(fraction=fraction))
    parts = [first, second]
    total = settings.compute_n_updates(7)
    assert total == n + n_parts
    if round((1 - fraction) * total) not in (0, total):
        assert sum(part.compute_n_updates(7) for part in parts) == total
    waves = [(k / n_parts, (k + 1) / n_parts) for k in range(n_parts)]
    parts = [settings.model_copy(update={"part": part}) for part in waves]
    assert sum(part.compute_n_updates(7) for part in parts) == total


def test_defaults_are_those_of_the_paper():
    """Section 4 and appendix C: alpha 0.8, 5e-5 then 1e-6, 10 % warmup, linear schedule."""
    first, second = build_redi_settings(SETTINGS, REDIOptions())
    assert (first.train, second.rows.alpha) == (SETTINGS.train, 0.8)
    assert second.train.learning_rate == pytest.approx(1e-6)
    assert (second.train.warmup_ratio, second.train.lr_scheduler_type) == (0.1, "linear")


def test_new_keys_are_in_no_fingerprint_of_other_trainings():
    dump = SETTINGS.model_dump()
    assert "part" not in dump and "alpha" not in dump["rows"]
    assert "lora" in dump
