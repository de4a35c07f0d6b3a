"""The bytes of a text that each of its tokens stands for.

All tokenizers that write every byte of a text have them: byte-level BPE, also where a character is
split over several tokens, and SentencePiece with byte fallback.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate

from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from bridgekd.errors import InputError
from bridgekd.lm.tokenization import tokenize_continuations
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
    the target counts as one byte. If a tokenizer changes the bytes of a span, such as an accent
    that it composes, only the last token of the span has bytes: all of them.
    """
    texts = [span.text for row in rows for span in row.spans]
    targets = iter(zip(texts, tokenize_continuations(tokenizer, texts), strict=True))
    ends = []
    for row in rows:
        row_ends: list[int] = []
        start = 0
        for _ in row.spans:
            text, ids = next(targets)
            size = len(text.encode())
            parts = split_bytes(tokenizer, ids, text)
            if parts is None:
                row_ends += [*[start] * (len(ids) - 1), start + size][: len(ids)]
            else:
                row_ends += [start + end for end in accumulate(map(len, parts))]
            start += size
        ends.append((*row_ends, start + 1))
    return ends


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


def check_keeps_bytes(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], objective: str
) -> None:
    """Raise InputError for the first text that the tokenizer does not write byte by byte."""
    for text, ids in zip(texts, tokenize_continuations(tokenizer, texts), strict=True):
        if split_bytes(tokenizer, ids, text) is None:
            raise InputError(
                f"The objective {objective} compares two models byte by byte, and the tokenizer of "
                f"{tokenizer.name_or_path} changes {format_value(text)} into "
                f"{format_value(str(tokenizer.decode(ids)))}. Use a model whose tokenizer keeps "
                "all bytes, or a method that learns from rationales alone, such as bridge_random."
            )


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
