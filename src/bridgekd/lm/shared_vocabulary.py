"""The tokens that two models share, and whether they write the same text with the same tokens."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from bridgekd.errors import InputError
from bridgekd.lm.load import load_tokenizer
from bridgekd.lm.token_bytes import check_token_places
from bridgekd.lm.tokenization import tokenize_continuations
from bridgekd.messages import format_value

# Words, numbers, formulas, code, accents and other scripts: what tokenizers split differently.
PROBE_TEXTS = (
    "Therefore, the remaining passengers couldn't have paid more than $1,234.50 (about 17 %).",
    "x_1 = 3*4 - 12/5 >= 9.6\n\tif (a != b) { return foo[i]; }",
    "Na\u00efve \u00c5ngstr\u00f6m, \u0645\u0631\u062d\u0628\u0627, \u4f60\u597d, "
    "\u041f\u0440\u0438\u0432\u0435\u0442",
)


def find_shared_ids(
    trained: PreTrainedTokenizerBase, reference: PreTrainedTokenizerBase
) -> list[int]:
    """Return the ids, ascending, that are the same token in both vocabularies."""
    other = reference.get_vocab()
    return sorted(i for token, i in trained.get_vocab().items() if other.get(token) == i)


def check_same_tokens(
    trained: PreTrainedTokenizerBase,
    reference: PreTrainedTokenizerBase,
    texts: Sequence[str],
    objective: str,
) -> None:
    """Raise InputError for the first text that the two tokenizers split differently."""
    pairs = zip(
        texts,
        tokenize_continuations(trained, texts),
        tokenize_continuations(reference, texts),
        strict=True,
    )
    for text, ours, theirs in pairs:
        if ours != theirs:
            raise InputError(
                f"The objective {objective} compares two models token by token, and their "
                f"tokenizers split {format_value(text)} differently: {trained.name_or_path} into "
                f"{len(ours)} tokens, {reference.name_or_path} into {len(theirs)} others. Use the "
                "method distill with the objective alm or uld, which need no common tokens, or a "
                "student of the assistant's model family."
            )


@lru_cache(maxsize=8)
def check_shared_vocabulary(
    trained: tuple[str | Path, str | None], reference: tuple[str | Path, str | None], objective: str
) -> None:
    """Raise InputError if two models (Hub id or folder, revision) split some texts differently.

    A tokenizer that is not on this machine and cannot be downloaded is not checked.
    """
    try:
        ours, theirs = load_tokenizer(*trained), load_tokenizer(*reference)
    except InputError:  # the training says it, when it needs the model
        return
    check_same_tokens(ours, theirs, PROBE_TEXTS, objective)


@lru_cache(maxsize=8)
def check_alignment(model: tuple[str | Path, str | None], objective: str) -> None:
    """Raise InputError if the tokens of a model (Hub id or folder, revision) have unknown places in
    some texts.

    A tokenizer that is not on this machine and cannot be downloaded is not checked.
    """
    try:
        tokenizer = load_tokenizer(*model)
    except InputError:  # the training says it, when it needs the model
        return
    check_token_places(tokenizer, PROBE_TEXTS, objective)
