"""Where the tokens of a text end in it, in bytes.

A tokenizer that writes every byte of a text has exact ends: byte-level BPE, also where a character
is split over several tokens, and SentencePiece with byte fallback. If a tokenizer changes a text
(lower case, a composed accent, an unknown word), a token ends where its characters in the original
text end.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate

from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from bridgekd.errors import InputError
from bridgekd.lm.control_tokens import encode_texts
from bridgekd.lm.tokenization import ANCHOR_TEXT, tokenize_continuations
from bridgekd.messages import format_value
from bridgekd.records import TrainingSequence

WORD_START = "\u2581"  # of SentencePiece: a space
_BYTE_TOKEN = re.compile("<0x([0-9A-F]{2})>")
_byte_names: Callable[[], dict[int, str]] = bytes_to_unicode  # it has no types
_BYTE_OF_CHARACTER = {character: byte for byte, character in _byte_names().items()}


def compute_byte_ends(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[TrainingSequence]
) -> list[tuple[int, ...]]:
    """Return for each row the byte where each token of its target ends, ascending.

    The tokens are those of `tokenize_sequences`, so some end where a span ends. The token that ends
    the target counts as one byte. Bytes that no token has belong to the next one. Without a place
    for the tokens of a span, its last token has all bytes.
    """
    texts = [span.text for row in rows for span in row.spans]
    targets = iter(zip(texts, tokenize_continuations(tokenizer, texts), strict=True))
    ends = []
    for row in rows:
        row_ends: list[int] = []
        start = 0
        for _ in row.spans:
            text, ids = next(targets)
            span_ends = find_ends(tokenizer, ids, text) or [0] * len(ids)
            start_of_next = start + len(text.encode())
            row_ends += [start + end for end in span_ends]
            if ids:
                row_ends[-1] = start_of_next
            start = start_of_next
        ends.append((*row_ends, start + 1))
    return ends


def find_ends(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], text: str
) -> list[int] | None:
    """Return the byte of a text where each of its tokens ends; None if that is unknown."""
    parts = split_bytes(tokenizer, ids, text)
    if parts is not None:
        return list(accumulate(map(len, parts)))
    for anchor in (ANCHOR_TEXT, ""):  # as in `tokenize_continuations`
        (encoded,) = encode_texts(tokenizer, [anchor + text])
        n_anchor = len(encoded.ids) - len(ids)
        if tokenizer.is_fast and n_anchor >= 0 and encoded.ids[n_anchor:] == list(ids):
            offsets = [
                (max(0, a - len(anchor)), max(0, b - len(anchor)))
                for a, b in encoded.offsets[n_anchor:]
            ]
            return _convert_offsets(offsets, text)
    return None


def split_bytes(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], text: str
) -> list[bytes] | None:
    """Return the bytes of each token of a text; None if they are not the text.

    A space that SentencePiece puts before a text is no part of it.
    """
    whole = text.encode()
    tokens = [str(token) for token in tokenizer.convert_ids_to_tokens(list(ids))]
    added = _list_added_tokens(tokenizer)
    for read in (_read_byte_characters, _read_pieces):
        parts = [added[i] if i in added else read(t) for i, t in zip(ids, tokens, strict=True)]
        joined = b"".join(parts)
        if joined == b" " + whole and parts[0].startswith(b" "):
            parts[0], joined = parts[0][1:], whole
        if joined == whole:
            return parts
    return None


def check_token_places(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], objective: str
) -> None:
    """Raise InputError for the first text in which the places of the tokens are unknown."""
    for text, ids in zip(texts, tokenize_continuations(tokenizer, texts), strict=True):
        if find_ends(tokenizer, ids, text) is None:
            raise InputError(
                f"The objective {objective} compares models by the places of their tokens in a "
                f"text, and the tokenizer of {tokenizer.name_or_path} does not say where they are "
                f"in {format_value(text)}. Use a model with a fast tokenizer (tokenizer.json), or "
                "the method bridge_random."
            )


def _convert_offsets(offsets: Sequence[tuple[int, int]], text: str) -> list[int]:
    """Return ends in bytes, ascending, from characters.

    Of the tokens that share a character only the last one has it.
    """
    n_bytes = [0, *accumulate(len(character.encode()) for character in text)]
    following = [*(start for start, _ in offsets[1:]), len(text)]
    pairs = zip(offsets, following, strict=True)
    ends = [n_bytes[start if then < end else end] for (start, end), then in pairs]
    return list(accumulate(ends, max))


def _read_byte_characters(token: str) -> bytes:
    """Return the bytes of a token of byte-level BPE, which has a character for each byte."""
    return b"".join(
        bytes([_BYTE_OF_CHARACTER[c]]) if c in _BYTE_OF_CHARACTER else c.encode() for c in token
    )


def _read_pieces(token: str) -> bytes:
    """Return the bytes of a token of SentencePiece."""
    if match := _BYTE_TOKEN.fullmatch(token):
        return bytes([int(match[1], 16)])
    return token.replace(WORD_START, " ").encode()


@lru_cache(maxsize=4)
def _list_added_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[int, bytes]:
    """Return the bytes of tokens that are written as they are."""
    return {
        i: token.content.encode()
        for i, token in tokenizer.added_tokens_decoder.items()
        if not _BYTE_TOKEN.fullmatch(token.content)
    }
