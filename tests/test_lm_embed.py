"""Embeddings of a tiny random sentence-transformers model."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from bridgekd import lm
from bridgekd.errors import InputError
from tiny_models import tiny_tokenizer

TEXTS = ["Ann holds a red box .", "Bob", "the quick brown fox jumps over the lazy dog", "Who ?"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer("word_level", None)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, initializer_range=0.3, max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    bert = Transformer(str(folder / "bert"))
    SentenceTransformer(modules=[bert, Pooling(16)], device="cpu").save(str(folder / "whole"))
    return folder / "whole"


def test_embeddings_have_length_1_and_ignore_batch(folder):
    reports = []
    all_ = lm.embed_texts(
        folder, TEXTS, device="cpu", batch_size=4,
        progress=lambda what, done, total: reports.append((what, done, total)),
    )  # fmt: skip
    assert all_.shape == (4, 16) and all_.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(all_, axis=1), 1, atol=1e-6)
    for text, vector in zip(TEXTS, all_, strict=True):
        (alone,) = lm.embed_texts(str(folder), [text], device="cpu", batch_size=1)
        np.testing.assert_allclose(alone, vector, atol=1e-5)
    assert reports == [("embed", 0, 4), ("embed", 4, 4)]


def test_no_texts_give_no_embeddings(folder):
    assert lm.embed_texts(folder, [], device="cpu", batch_size=4).shape == (0, 0)


def test_folder_without_encoder_is_named(tmp_path):
    with pytest.raises(InputError, match="cannot be loaded"):
        lm.embed_texts(tmp_path, TEXTS, device="cpu", batch_size=4)
    with pytest.raises(InputError, match="not found"):
        lm.embed_texts(tmp_path / "nowhere", TEXTS, device="cpu", batch_size=4)


def test_missing_package_is_named_with_install_command():
    code = (
        "import sys; sys.modules['sentence_transformers'] = None\n"
        "from bridgekd import lm\n"
        "lm.embed_texts('any/model', ['x'], device='cpu', batch_size=1)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("bridgekd.errors.InputError") and "pip install 'bridgekd[embed]'" in last
