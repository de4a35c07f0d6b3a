"""Text stays text: how a question or a rationale that spells a control token is tokenized.

A tokenizer reads the text `<|im_end|>` as the token that ends a turn, whoever wrote it.
`split_special_tokens` also splits the tokens of the chat template, does not reach a vocabulary that
has the control token as a word, and ignores a text that only normalization turns into one. So a
copy of the tokenizer knows its control tokens under secret names, and only the chat template is
given these names. All other texts are tokenized as before.
"""

import json
import re
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from bridgekd.records import Message

Offsets = Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class EncodedText:
    """The tokens of a text, and where each is in `text`; no offsets if the tokenizer has none."""

    text: str
    ids: list[int]
    offsets: Offsets


@dataclass(frozen=True)
class PlainTextEncoder:
    """Tokenizes texts whose control tokens are text, except those that a chat template writes.

    placeholders: what stands for each control token of a message while the template is rendered.
    template_names: what `encode` reads as each control token. spellings: what it reads as the text
    of it. Both keep the text, except for a tokenizer that is not fast: it gets a space inside the
    text of a control token.
    """

    tokenizer: PreTrainedTokenizerBase
    copy: Any
    placeholders: dict[str, str]
    template_names: dict[str, str]
    spellings: dict[str, str]

    def hide(self, prompt: Sequence[Message]) -> list[Message]:
        """Return the messages with placeholders for the control tokens in their texts."""
        return [replace(m, content=_replace_all(m.content, self.placeholders)) for m in prompt]

    def reveal(self, rendered: str) -> str:
        """Return the rendered, hidden messages as a text for `encode`."""
        named = _replace_all(rendered, self.template_names)
        back = {hidden: self.spellings[token] for token, hidden in self.placeholders.items()}
        return _replace_all(named, back)

    def spell(self, text: str) -> str:
        """Return a text without template as a text for `encode`."""
        return _replace_all(text, self.spellings)

    def encode(self, texts: Sequence[str]) -> list[EncodedText]:
        """Return the tokens of texts of `reveal` or `spell`, without BOS and EOS."""
        if self.copy is None:
            return encode_texts(self.tokenizer, texts)
        own_ids = {
            self.copy.token_to_id(name): self.tokenizer.convert_tokens_to_ids(token)
            for token, name in self._list_names().items()
        }
        return [
            EncodedText(text, [own_ids.get(i, i) for i in encoding.ids], encoding.offsets)
            for text, encoding in zip(
                texts, self.copy.encode_batch(list(texts), add_special_tokens=False), strict=True
            )
        ]

    def _list_names(self) -> dict[str, str]:
        """Return the name in the copy of every added token: its id may be another one there."""
        added = (str(token) for token in self.tokenizer.added_tokens_decoder.values())
        return {token: self.template_names.get(token, token) for token in added}


def encode_texts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[EncodedText]:
    """Return the tokens of texts, in which control tokens are tokens, without BOS and EOS."""
    if not texts:
        return []
    encoding = tokenizer(
        list(texts),
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        return_offsets_mapping=tokenizer.is_fast,
        verbose=False,
    )
    offsets = encoding["offset_mapping"] if tokenizer.is_fast else [()] * len(texts)
    return list(map(EncodedText, texts, encoding["input_ids"], offsets))


def has_control_token(
    tokenizer: PreTrainedTokenizerBase, control_ids: frozenset[int], encoded: EncodedText
) -> bool:
    """Return whether the tokenizer reads a text as a control token.

    The unknown token counts only if the text spells it: it also stands for an unknown word.
    """
    found = control_ids.intersection(encoded.ids)
    if found == {tokenizer.unk_token_id}:
        return str(tokenizer.unk_token) in encoded.text
    return bool(found)


@lru_cache(maxsize=2)
def load_plain_text_encoder(
    tokenizer: PreTrainedTokenizerBase, control_ids: frozenset[int]
) -> PlainTextEncoder:
    """Return the encoder of a tokenizer. A large vocabulary takes about two seconds to copy."""
    tokens = [str(token) for token in tokenizer.convert_ids_to_tokens(sorted(control_ids))]
    secret = secrets.token_hex(8)  # no text contains it
    names = {token: f"{secret}n{i}n" for i, token in enumerate(tokens)}
    placeholders = {token: f"{secret}p{i}p" for i, token in enumerate(tokens)}
    if not tokenizer.is_fast:
        spaced = {token: f"{token[0]} {token[1:]}" for token in tokens}
        own = {token: token for token in tokens}
        return PlainTextEncoder(tokenizer, None, placeholders, own, spaced)
    own = {token: token for token in tokens}
    copy = _copy_with_names(tokenizer, names)
    return PlainTextEncoder(tokenizer, copy, placeholders, names, own)


def _copy_with_names(tokenizer: PreTrainedTokenizerBase, names: dict[str, str]) -> Any:
    """Return the backend of a fast tokenizer with other names for its control tokens."""
    backend: Any = tokenizer.backend_tokenizer
    config = json.loads(backend.to_str())
    config["truncation"] = config["padding"] = None
    for added in config["added_tokens"]:
        added["content"] = names.get(added["content"], added["content"])
    model = config["model"]
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):  # Unigram: [word, score], in the order of the ids
        for entry in vocabulary:
            entry[0] = names.get(entry[0], entry[0])
    else:
        # The unknown token is what the model gives for an unknown word. A merge needs its parts.
        kept = {model.get("unk_token"), *_list_merged(model.get("merges", ()), names)}
        model["vocab"] = {
            word if word in kept else names.get(word, word): i for word, i in vocabulary.items()
        }
    return Tokenizer.from_str(json.dumps(config))


def _list_merged(merges: Sequence[Any], tokens: Collection[str]) -> set[str]:
    """Return the tokens that are a part or the result of a merge, each `a b` or [a, b]."""
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in merges)
    return {word for a, b in pairs for word in (a, b, a + b) if word in tokens}


def _replace_all(text: str, replacements: dict[str, str]) -> str:
    """Replace every key by its value, in one pass; of two keys at one place the longer one."""
    keys = sorted(filter(None, replacements), key=len, reverse=True)
    pattern = "|".join(map(re.escape, keys)) or "(?!)"
    return re.sub(pattern, lambda match: replacements[match[0]], text)
