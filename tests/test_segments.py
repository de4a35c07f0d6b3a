"""Tokens of two tokenizers are matched by the bytes of the text."""

from itertools import chain, pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from bridgekd import lm
from bridgekd.errors import InputError
from bridgekd.lm.segments import align_tokens, number_tokens, pair_positions
from bridgekd.lm.shared_vocabulary import PROBE_TEXTS
from bridgekd.lm.token_bytes import check_token_places, compute_byte_ends, split_bytes
from bridgekd.lm.tokenization import (
    FALLBACK_TEMPLATE,
    tokenize_continuations,
    tokenize_sequences,
)
from bridgekd.records import Message, TargetSpan, TrainingSequence
from test_control_tokens import make_slow
from tiny_models import tiny_tokenizer, write_tiny

PROMPT = (Message("user", "Who?"),)


def wrap(raw, **tokens):
    return PreTrainedTokenizerFast(tokenizer_object=raw, chat_template=FALLBACK_TEMPLATE, **tokens)


def normalize(normalizer):
    """Return byte-level BPE that reads a changed text."""
    raw = Tokenizer.from_str(TOKENIZERS["byte_level"].backend_tokenizer.to_str())
    raw.normalizer = normalizer
    return wrap(raw, eos_token="</s>")


def build_character_tokenizer(texts):
    """Return a tokenizer whose tokens are characters."""
    vocabulary = {c: i for i, c in enumerate(sorted({c for text in texts for c in text} | {"\n"}))}
    raw = Tokenizer(models.WordLevel({**vocabulary, "<unk>": len(vocabulary)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return wrap(raw, unk_token="<unk>", eos_token="<unk>")


def build_byte_tokenizer():
    """Return byte-level BPE without merges: its tokens are bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {c: i for i, c in enumerate([*alphabet, "</s>"])}
    raw = Tokenizer(models.BPE(vocabulary, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return wrap(raw, eos_token="</s>")


TOKENIZERS = {
    "bytes": build_byte_tokenizer(),
    "byte_level": tiny_tokenizer("byte_level"),
    "metaspace": tiny_tokenizer("metaspace"),
}
TEXTS = st.text(st.sampled_from("Ann holds the red box.\n é你👩‍🚀\u200d=2+"), max_size=30)
ENDS = st.sets(st.integers(1, 30), min_size=1, max_size=12).map(sorted)


def check_segments(ours, theirs):
    """A segment ends where both sides have an end, and nowhere else."""
    segments = align_tokens(ours, theirs)
    for side, ends in enumerate((ours, theirs)):
        tokens = [list(range(*pair[side].indices(len(ends)))) for pair in segments]
        assert [*chain.from_iterable(tokens)] == list(range(len(ends))) and all(tokens)
        assert [ends[t[-1]] for t in tokens] == sorted({*ours} & {*theirs} - {0})
    return segments


@given(ENDS, ENDS)
def test_segments_are_the_smallest_with_the_same_bytes(ours, theirs):
    ours, theirs = [*ours, 31], [*theirs, 31]
    segments = check_segments(ours, theirs)
    assert [(b, a) for a, b in segments] == align_tokens(theirs, ours)
    assert align_tokens(ours, ours) == [(slice(i, i + 1),) * 2 for i in range(len(ours))]


@given(st.lists(st.integers(0, 5), min_size=1), st.lists(st.integers(0, 5), min_size=1))
def test_a_token_without_bytes_belongs_to_what_follows(ours, theirs):
    ours, theirs = [*sorted(ours), 6], [*sorted(theirs), 6]
    segments = check_segments(ours, theirs)
    starts = [0, *(ours[a.stop - 1] for a, _ in segments)]
    assert all(a < b for a, b in pairwise(starts))


def test_positions_are_paired_up_to_the_shorter_side():
    assert pair_positions([1, 2, 9], [4, 9]) == [(slice(0, 1),) * 2, (slice(1, 2),) * 2]
    assert number_tokens([slice(0, 1), slice(1, 2)], 3) == (0, 1, 2)


@settings(max_examples=40)
@given(TEXTS)
def test_both_sides_of_a_segment_are_the_same_bytes(text):
    tokens = {
        name: split_bytes(tokenizer, tokenize_continuations(tokenizer, [text])[0], text)
        for name, tokenizer in TOKENIZERS.items()
    }
    assert tokens["bytes"] == [bytes([b]) for b in text.encode()]
    row = TrainingSequence("a", PROMPT, (TargetSpan(text),))
    ends = {name: compute_byte_ends(t, [row])[0] for name, t in TOKENIZERS.items()}
    for one, other in (("bytes", "byte_level"), ("byte_level", "metaspace")):
        *segments, (end, _) = check_segments(ends[one], ends[other])
        assert end == slice(len(tokens[one]), len(tokens[one]) + 1)
        for a, b in segments:
            assert b"".join(tokens[one][a]) == b"".join(tokens[other][b]) != b""


def test_a_character_that_is_split_over_tokens_is_matched_by_its_bytes():
    ids = tokenize_continuations(TOKENIZERS["byte_level"], ["你"])[0]
    assert split_bytes(TOKENIZERS["byte_level"], ids, "你") == [b"\xe4", b"\xbd", b"\xa0"]
    tokenizer = build_character_tokenizer(["你"])
    assert split_bytes(tokenizer, tokenize_continuations(tokenizer, ["你"])[0], "你") == [
        "你".encode()
    ]


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
def test_ends_are_those_of_the_training_tokens(tokenizer):
    spans = (TargetSpan("Ann holds it.\n"), TargetSpan(""), TargetSpan("Answer: é", 2.0))
    row = TrainingSequence("a", PROMPT, spans)
    (ends,), (tokens,) = compute_byte_ends(tokenizer, [row]), tokenize_sequences(tokenizer, [row])
    assert len(ends) == len(tokens.ids) - tokens.n_prompt
    assert {14, 24} <= {*ends} and ends[-1] == len(row.text.encode()) + 1


def test_a_space_that_a_tokenizer_puts_before_a_text_is_no_part_of_it():
    tokenizer = TOKENIZERS["metaspace"]
    ids = tokenizer("Ann holds", add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids)[0].startswith("▁")
    assert b"".join(split_bytes(tokenizer, ids, "Ann holds")) == b"Ann holds"


@pytest.mark.parametrize("kind, text, expected", [
    ("composes", "Ann e\u0301a box", ["Ann", " ", "", "e\u0301", "a", " box"]),
    ("lowers", "AnN IS", ["a", "n", "n", " ", "i", "s"]),
    ("words", "Ann holds\nbread . ", ["Ann", " holds", "\nbread", " . "]),
])  # fmt: skip
def test_tokens_of_a_changed_text_end_where_their_characters_end(kind, text, expected):
    tokenizer = {
        "composes": normalize(normalizers.NFC()),
        "lowers": normalize(normalizers.Lowercase()),
        "words": tiny_tokenizer("word_level"),
    }[kind]
    ids = tokenize_continuations(tokenizer, [text])[0]
    assert split_bytes(tokenizer, ids, text) is None
    row = TrainingSequence("a", PROMPT, (TargetSpan(text),))
    ours, theirs = (compute_byte_ends(t, [row])[0] for t in (tokenizer, TOKENIZERS["bytes"]))
    parts = [text.encode()[a:b].decode() for a, b in pairwise([0, *ours[:-1]])]
    assert parts == expected or (kind != "words" and "".join(parts) == text)
    check_segments(ours, theirs)
    check_token_places(tokenizer, PROBE_TEXTS, "alm")


def test_a_tokenizer_without_places_is_refused():
    tokenizer = make_slow()
    with pytest.raises(InputError, match="objective alm compares models by the places of their"):
        check_token_places(tokenizer, PROBE_TEXTS, "alm")
    row = TrainingSequence("a", PROMPT, (TargetSpan("à is"), TargetSpan("ào")))
    ours, theirs = (compute_byte_ends(t, [row])[0] for t in (tokenizer, TOKENIZERS["bytes"]))
    assert [theirs[b.stop - 1] for _, b in check_segments(ours, theirs)] == [5, 8, 9]


def test_log_probabilities_of_targets_are_those_of_the_model(tmp_path):
    """Also after a call that was stopped, and for the prompt that only the reference reads."""
    local = lm.load_model(write_tiny(tmp_path, tokenizer="metaspace"), device="cpu")
    prompts = [None, (Message("user", "Ann holds the box. Who?"),)]
    spans = (TargetSpan("Ann holds é\n"), TargetSpan("Answer: Ann", 0.0))
    rows = [TrainingSequence(str(i), PROMPT, spans, p) for i, p in enumerate(prompts)]
    batches = []
    found = lm.score_targets(
        local, rows, batch_size=1, on_batch=lambda batch, values: batches.append((batch, values))
    )
    for row, sequence, prompt in zip(found, rows, prompts, strict=True):
        (tokens,) = tokenize_sequences(
            local.tokenizer, [TrainingSequence("", prompt or PROMPT, spans)]
        )
        ids = torch.tensor([tokens.ids])
        with torch.no_grad():
            logits = local.model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        expected = logits.gather(-1, ids[0, 1:, None])[tokens.n_prompt - 1 :, 0]
        assert row.logprobs == pytest.approx(expected.tolist(), abs=1e-4)
        assert (row.id, row.key) == (sequence.id, sequence.key)
        assert row.ends == compute_byte_ends(local.tokenizer, [sequence])[0]
    known = dict(zip(*batches[0], strict=True))
    again = lm.score_targets(
        local, rows, batch_size=1, known=known, on_batch=lambda batch, _: known.update({-1: batch})
    )
    assert again == found and known[-1] == batches[1][0]
