"""The tokens and loss weights of a sequence, for every tokenizer and template."""

from itertools import pairwise
from types import SimpleNamespace

import pytest
from tokenizers import AddedToken
from tokenizers.processors import TemplateProcessing

from bridgekd.errors import InputError
from bridgekd.lm.tokenization import (
    FALLBACK_TEMPLATE,
    find_stop_ids,
    find_turn_end_id,
    render_prompt,
    tokenize_continuations,
    tokenize_prompts,
    tokenize_sequences,
)
from bridgekd.records import Message, TargetSpan, TrainingSequence
from tiny_models import CHATML, TOKENIZERS, tiny_tokenizer

LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m['role'] }}\n\n{{ m['content'] }}</s>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
)
# Qwen3: removes earlier thinking blocks; writes an empty one if thinking is off.
QWEN3 = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{{ m['content'].split('</think>')[-1] if m['role'] == 'assistant' else m['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% endif %}{% endif %}"
)
R1 = CHATML.replace("assistant\n", "assistant\n<think>\n")
TEMPLATES = {
    "chatml": CHATML,
    "llama3": LLAMA3,
    "gemma": GEMMA,
    "qwen3": QWEN3,
    "r1": R1,
    "plain": FALLBACK_TEMPLATE,
}
PROMPT = (Message("user", "Who holds the box ?"),)
SPANS = (TargetSpan("Ann holds the box .\n"), TargetSpan("Answer: Ann", 0.5))


def flat(text):
    return "".join(text.split())


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_every_token_has_weight_of_its_span(kind, template):
    tok = tiny_tokenizer(kind, TEMPLATES[template])
    (row,) = tokenize_sequences(tok, [TrainingSequence("a", PROMPT, SPANS)])
    (prompt,) = tokenize_prompts(tok, [PROMPT])
    first, second = tokenize_continuations(tok, [span.text for span in SPANS])
    assert list(row.ids) == [*prompt, *first, *second, find_turn_end_id(tok)]
    n = len(prompt), len(first), len(second) + 1
    assert list(row.weights) == [0.0] * n[0] + [1.0] * n[1] + [0.5] * n[2]
    assert n[1] > 1 and n[2] > 1


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_answer_that_has_begun_has_the_tokens_of_the_training(kind, template):
    tok = tiny_tokenizer(kind, TEMPLATES[template])
    (row,) = tokenize_sequences(tok, [TrainingSequence("a", PROMPT, SPANS)])
    begun = (*PROMPT, Message("assistant", SPANS[0].text))
    prompt, longer = tokenize_prompts(tok, [PROMPT, begun])
    assert len(longer) > len(prompt) and list(row.ids[: len(longer)]) == longer


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_tokens_decode_to_prompt_and_target(kind, template):
    tok = tiny_tokenizer(kind, TEMPLATES[template])
    (row,) = tokenize_sequences(tok, [TrainingSequence("a", PROMPT, SPANS)])
    n_prompt = row.weights.index(1.0)
    target = tok.decode(row.ids[n_prompt:-1])
    full = tok.decode(row.ids[:-1])
    if kind == "word_level":  # this kind does not keep white space, and knows no template words
        assert flat(target) == flat("Ann holds the box . Answer: Ann")
        return
    assert target == "Ann holds the box .\nAnswer: Ann"
    assert flat(full) == flat(render_prompt(tok, PROMPT) + target)


@pytest.mark.parametrize("kind", ["byte_level", "metaspace"])
def test_span_starts_without_extra_space(kind):
    tok = tiny_tokenizer(kind)
    pieces = ["So 2 + 2", " = 4.\n", "Answer: (A) yes", "\n\nthe dog", "", " "]
    joined = [token for ids in tokenize_continuations(tok, pieces) for token in ids]
    anchor = tokenize_continuations(tok, ["x"])[0]
    assert tok.decode(anchor + joined) == "x" + "".join(pieces)


def test_bos_is_written_once():
    tok = tiny_tokenizer("byte_level", LLAMA3)
    tok.backend_tokenizer.post_processor = bos_first()
    (ids,) = tokenize_prompts(tok, [PROMPT])
    assert ids.count(tok.bos_token_id) == 1 and ids[0] == tok.bos_token_id


def bos_first():
    return TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])


def test_row_without_prompt_is_text_between_bos_and_eos():
    tok = tiny_tokenizer("byte_level")
    row = TrainingSequence("a", (), (TargetSpan("the lazy dog"),))
    (bare,) = tokenize_sequences(tok, [row])
    assert list(bare.ids) == [*tokenize_continuations(tok, ["the lazy dog"])[0], tok.eos_token_id]
    assert bare.weights == (0.0,) + (1.0,) * (len(bare.ids) - 1)  # nothing predicts the first token
    tok.backend_tokenizer.post_processor = bos_first()
    (started,) = tokenize_sequences(tok, [row])
    assert list(started.ids) == [tok.bos_token_id, *bare.ids]
    assert started.weights == (0.0,) + (1.0,) * len(bare.ids)


def test_end_is_learned_if_padding_is_same_token():
    tok = tiny_tokenizer("byte_level", FALLBACK_TEMPLATE)
    tok.pad_token = tok.eos_token
    (row,) = tokenize_sequences(tok, [TrainingSequence("a", PROMPT, SPANS)])
    assert row.ids[-1] == tok.pad_token_id and row.weights[-1] == 0.5


def test_turn_ends_with_token_of_template():
    tok = tiny_tokenizer("byte_level", CHATML)
    assert find_turn_end_id(tok) == tok.convert_tokens_to_ids("<|im_end|>")
    tok.chat_template = FALLBACK_TEMPLATE
    assert find_turn_end_id(tok) == tok.eos_token_id


@pytest.mark.parametrize(("template", "end"), [(FALLBACK_TEMPLATE, "</s>"), (CHATML, "<|im_end|>")])
def test_line_break_that_is_an_added_token_ends_no_turn(template, end):
    tok = tiny_tokenizer("byte_level", template)
    tok.add_tokens([AddedToken("\n", normalized=False)])
    assert tok("\n")["input_ids"] == [len(tok) - 1]
    (row,) = tokenize_sequences(tok, [TrainingSequence("a", PROMPT, SPANS)])
    assert row.ids[-1] == find_turn_end_id(tok) == tok.convert_tokens_to_ids(end)


def test_stop_ids_are_turn_end_eos_and_those_of_model():
    tok = tiny_tokenizer("byte_level", CHATML)
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=7))
    assert find_stop_ids(tok, model) == (tok.eos_token_id, find_turn_end_id(tok), 7)


def test_thinking_block_of_template_is_closed_before_target():
    for template in (QWEN3, R1):
        text = render_prompt(tiny_tokenizer("byte_level", template), PROMPT)
        assert text.count("<think>") == text.count("</think>") == 1
        assert text.endswith("</think>\n\n")


def test_thinking_block_in_target_is_unchanged():
    tok = tiny_tokenizer("byte_level", QWEN3)
    span = TargetSpan("<think>\nso it is\n</think>\n\nAnswer: Ann")
    (row,) = tokenize_sequences(tok, [TrainingSequence("a", PROMPT, (span,))])
    assert tok.decode([i for i, w in zip(row.ids, row.weights, strict=True) if w][:-1]) == span.text


def test_rejected_system_message_goes_before_first_user_message():
    tok = tiny_tokenizer("byte_level", GEMMA)
    text = render_prompt(tok, (Message("system", "Be brief."), Message("user", "Who ?")))
    assert "user\nBe brief.\n\nWho ?<|im_end|>" in text


def test_rejected_prompt_raises_error():
    refusing = "{{ raise_exception('Roles must alternate') }}"
    tok = tiny_tokenizer("byte_level", refusing)
    for prompt in (PROMPT, (Message("system", "Be brief."), *PROMPT)):
        with pytest.raises(InputError, match="The chat template rejects the prompt: Roles must"):
            render_prompt(tok, prompt)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_adjacent_ranges_share_no_token_and_miss_none(kind):
    """A row with a range has the tokens of the complete row up to its end, none of them changed."""
    tok = tiny_tokenizer(kind, CHATML)
    spans = (TargetSpan("Ann holds the box .\nBob gives it .\n"), TargetSpan("Answer: Ann", 0.5))
    (full,) = tokenize_sequences(tok, [TrainingSequence("a", PROMPT, spans)])
    cuts = [0, 3, 13, 19, 38, None]  # inside a word, before a blank, and after the rationale
    parts = tokenize_sequences(
        tok,
        [TrainingSequence("a", PROMPT, spans, loss_start=a, loss_end=b) for a, b in pairwise(cuts)],
    )
    total = [0.0] * len(full.ids)
    for part in parts:
        assert part.ids == full.ids[: len(part.ids)] and part.n_prompt == full.n_prompt
        for i, weight in enumerate(part.weights):
            total[i] += weight
    assert tuple(total) == full.weights
    assert parts[-1].ids == full.ids
    n_before = len(tokenize_continuations(tok, [spans[0].text[:19]])[0])
    assert len(parts[2].ids) == full.n_prompt + n_before
