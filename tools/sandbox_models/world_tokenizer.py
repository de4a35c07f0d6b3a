"""Make the tokenizer of the world: one lower-case token per word, with a fixed vocabulary.

For any text of the world, encode(decode(ids)) == ids. A turn starts with the token of its role and
ends with `<end>`.
"""

import random
import re
from string import ascii_lowercase

from pretraining_corpus import generate_assistant_corpus, generate_instructions
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from bridgekd import prompts
from bridgekd.sandbox import domains, phrases

SPECIAL_TOKENS = ("<pad>", "<unk>", "<end>", "<system>", "<user>", "<assistant>")
N_NUMBERS = 31
FIXED = (
    *(
        prompts.ANSWER_INSTRUCTION,
        prompts.COT_INSTRUCTION,
        prompts.ANSWER_PREFIX,
        prompts.TEACHER_SYSTEM,
    ),
    *(
        prompts.REVEALED_ANSWER,
        "Is the proposed answer correct? True or False. Yes or no.",
        "explain predict",
    ),
    "question problem option options rationale reasoning . , : ; ? ! ( ) + - = ' / * %",
)
CHAT_TEMPLATE = (
    "{% for m in messages %}"
    "{% if m['role'] == 'assistant' %}<assistant>{% generation %}{{ m['content'] }}<end>"
    "{% endgeneration %}"
    "{% else %}{{ '<' + m['role'] + '>' + m['content'] }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def build_vocabulary() -> list[str]:
    """Return the special tokens, the line break, and every word of the world, sorted."""
    texts = list(FIXED)
    rng = random.Random("vocabulary")
    texts += [
        domains.render_problem(domains.sample_problem(rng, d), rng)
        for d in domains.DOMAINS
        for _ in range(500)
    ]
    texts += [t for kind in phrases.STEP_PHRASES.values() for t in kind]
    for row in generate_assistant_corpus(4000, 0):
        texts += [message.content for message in row.prompt] + [span.text for span in row.spans]
    texts += [f"{row.instruction} {row.response}" for row in generate_instructions(2000, 0)]
    words = {word for text in texts for word in domains.normalize_text(text).split(" ") if word}
    words -= {word for word in words if re.fullmatch(r"[{}]|[0-9]+", word)}
    words |= {*ascii_lowercase, *domains.PLACES, *domains.STATES, *domains.OUTCOMES, *domains.NAMES}
    return [*SPECIAL_TOKENS, "\n", *sorted(words), *map(str, range(N_NUMBERS))]


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer of all four models."""
    ids = {word: i for i, word in enumerate(build_vocabulary())}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    piece = Regex(r"\n|[a-z]+|[0-9]+|[^\sa-z0-9]")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(piece, "removed", invert=True)
    marks = [decoders.Replace(f" {mark}", mark) for mark in (".", ",", ":", ";", "?", "!", "\n")]
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.WordPiece(prefix="##", cleanup=False),
            *marks,
            decoders.Fuse(),
            decoders.Replace("\n ", "\n"),
        ]
    )
    return wrap_tokenizer(tokenizer)


def wrap_tokenizer(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """Return a transformers tokenizer with the special tokens and the chat template."""
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<end>",
        additional_special_tokens=list(SPECIAL_TOKENS[3:]),
        clean_up_tokenization_spaces=False,
        model_max_length=512,
        padding_side="right",
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
