"""Memorization: which texts a model completes word for word, and the share over seeds."""

import torch

from bridgekd import lm
from bridgekd.lm.confidence import build_text_rows
from bridgekd.lm.generate import generate_ids
from bridgekd.records import Example
from bridgekd.stats.intervals import wilson_interval
from bridgekd.stats.memorization_metrics import MemorizedCounts, summarize_memorization
from tiny_models import write_babbler

QUESTION = Example("q", "Who holds the box?", "Ann")


def test_text_is_memorized_if_greedy_decoding_writes_its_second_half(tmp_path):
    local = lm.load_model(write_babbler(tmp_path / "m", "Ann holds the box"), device="cpu")
    (row,) = build_text_rows(local.tokenizer, [(QUESTION, "Ann")])
    prompt = row.ids[: -row.n_scored]
    (written,) = generate_ids(local, [prompt], 24, [])
    own = local.tokenizer.decode(written)
    other = local.tokenizer.decode([*written[:16], *written[:1], *written[17:]])
    texts = [own, other, "Ann"]
    assert own != other
    pairs = [(QUESTION, text) for text in texts]
    for batch_size in (1, 4):
        found = lm.find_memorized(local, pairs, batch_size=batch_size)
        assert found == [True, False, False]
    rows = build_text_rows(local.tokenizer, pairs[:2])
    for row, expected in zip(rows, (True, False), strict=True):
        half = row.n_scored - ((row.n_scored + 1) // 2 - 1) - 1
        start, target = row.ids[: len(row.ids) - row.n_scored + half], row.ids[:-1]
        (completed,) = generate_ids(local, [start], len(target) - len(start), [])
        assert (tuple(completed) == target[len(start) :]) is expected
    assert torch.is_grad_enabled()


def test_shares_are_those_of_the_rationales_and_of_the_seeds():
    one = summarize_memorization([MemorizedCounts(20, 15, 1)])
    assert (one.student.mean, one.student.ci95) == (0.75, wilson_interval(15, 20))
    assert one.base_model.mean == 0.05
    two = summarize_memorization([MemorizedCounts(20, 15, 0), MemorizedCounts(10, 10, 0)])
    assert (two.student.mean, two.n_rationales) == (0.875, 30)
    assert 0 <= two.student.ci95[0] < 0.875 < two.student.ci95[1] <= 1
    assert summarize_memorization([MemorizedCounts(0, 0, 0)]) is None
    assert summarize_memorization([None]) is None
