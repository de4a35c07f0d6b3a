"""The tokens and loss weights of a row, for common model families."""

from datetime import datetime

import pytest

from bridgekd.lm.merge import make_self_contained
from bridgekd.lm.tokenization import (
    FALLBACK_TEMPLATE,
    find_stop_ids,
    find_turn_end_id,
    render_prompt,
    tokenize_prompts,
    tokenize_sequences,
)
from bridgekd.lm.update_schedule import pad_batch
from bridgekd.prompts import build_cot_target, render_cot_prompt
from bridgekd.records import Example, Message, TargetSpan, TrainingSequence
from chat_template_cases import FAMILIES, QUESTION, make_tokenizer

PROMPT = render_cot_prompt(Example("a", "Who holds the box ?"))
RATIONALE, ANSWER, LAMBDA = "Bob gives the box to Ann .", "Ann", 0.25
ROW = TrainingSequence("a", PROMPT, build_cot_target(RATIONALE, ANSWER, LAMBDA))
TOKENIZERS = {name: make_tokenizer(family) for name, family in FAMILIES.items()}


@pytest.fixture(params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


@pytest.fixture
def tok(family):
    """Return the tokenizer as `load_model` returns it: with a template and a padding token."""
    tok = make_tokenizer(family)
    tok.chat_template = tok.chat_template or FALLBACK_TEMPLATE
    if tok.pad_token_id is None:
        tok.pad_token = tok.eos_token
    return tok


def text_of(tok, ids):
    """Return the text of a continuation, special tokens included."""
    prefix = tok("x", add_special_tokens=False)["input_ids"]
    return tok.decode([*prefix, *ids], skip_special_tokens=False)[1:]


def parts(row):
    """Return the ids of (prompt, rationale, answer with end), selected by their weights."""
    return [
        [i for i, w in zip(row.ids, row.weights, strict=True) if w == weight]
        for weight in (0.0, 1.0, LAMBDA)
    ]


def swallowed(family, text):
    """Return the text without the white space that special tokens remove."""
    for token in family.specials if family.rstrip else ():
        head, *rest = text.split(token)
        text = token.join([head, *(part.lstrip() for part in rest)])
    return text


def test_prompt_has_format_of_family(family, tok):
    assert PROMPT[0].content == QUESTION
    assert render_prompt(tok, PROMPT) == family.prompt


def test_every_token_is_prompt_rationale_answer_or_end(family, tok):
    (row,) = tokenize_sequences(tok, [ROW])
    prompt, rationale, answer = parts(row)
    assert list(row.ids) == [*prompt, *rationale, *answer]  # in this order, without gaps
    assert text_of(tok, rationale) == f"{RATIONALE}\n"
    assert text_of(tok, answer[:-1]) == f"Answer: {ANSWER}"
    assert tok.convert_ids_to_tokens(answer[-1]) == family.end
    shown = tok.decode(prompt, skip_special_tokens=False)
    assert "".join(shown.split()) == "".join(swallowed(family, family.prompt).split())


def test_special_tokens_of_prompt_are_single_tokens(family, tok):
    (ids,) = tokenize_prompts(tok, [PROMPT])
    for token in family.specials:
        assert ids.count(tok.convert_tokens_to_ids(token)) == family.prompt.count(token), token
    assert tok.unk_token_id is None or tok.unk_token_id not in ids


def test_inference_sees_prompt_tokens_of_training(family, tok):
    (row,) = tokenize_sequences(tok, [ROW])
    (ids,) = tokenize_prompts(tok, [PROMPT])
    assert parts(row)[0] == ids
    tok.chat_template = make_self_contained(tok)
    messages = [{"role": "user", "content": QUESTION}]
    plain = tok.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
    assert plain["input_ids"] == ids  # without settings


def test_end_is_learned_and_padding_is_not(family, tok):
    """Also if both are the same token: the position of a token decides, not its id."""
    short = TrainingSequence("b", PROMPT, build_cot_target("So .", ANSWER, LAMBDA))
    rows = tokenize_sequences(tok, [ROW, short])
    batch = pad_batch(rows, tok.pad_token_id, "cpu")
    end = tok.convert_tokens_to_ids(family.end)
    assert find_turn_end_id(tok) == end
    width = batch.ids.shape[1]
    assert (
        width - len(rows[1].ids) > 2
        and (batch.ids[1, len(rows[1].ids) :] == tok.pad_token_id).all()
    )
    own = batch.positions >= width
    learned, weights = batch.targets[own].tolist(), batch.weights[own].tolist()
    assert learned == list(rows[1].ids[rows[1].n_prompt :])
    assert (learned[-1], weights[-1]) == (end, LAMBDA)


def test_turn_end_and_eos_end_text(family, tok):
    class Model:
        class generation_config:
            eos_token_id = None

    expected = {tok.convert_tokens_to_ids(t) for t in (family.end, family.eos)}
    assert set(find_stop_ids(tok, Model)) == expected


def test_thinking_block_in_target_is_learned_once(family, tok):
    thinking = "<think>\nBob gives the box .\n</think>\n"
    (row,) = tokenize_sequences(
        tok, [TrainingSequence("a", PROMPT, build_cot_target(thinking, ANSWER, LAMBDA))]
    )
    _, rationale, answer = parts(row)
    assert text_of(tok, rationale) == f"{thinking}\n"
    assert text_of(tok, answer[:-1]) == f"Answer: {ANSWER}"
    text = tok.decode(row.ids, skip_special_tokens=False)
    assert text.count("Bob gives the box .") == 1
    assert text.count("<think>") == 1 + family.prompt.count("<think>")
    assert text.count("</think>") == text.count("<think>")


def test_system_message_appears_once_in_every_family(family, tok):
    text = render_prompt(tok, (Message("system", "Be brief."), *PROMPT))
    assert text.count("Be brief.") == text.count(QUESTION) == 1
    assert text.index("Be brief.") < text.index(QUESTION)
    assert text.endswith(family.prompt[-9:])


def test_answer_with_leading_space_is_learned_in_full(family, tok):
    (row,) = tokenize_sequences(
        tok, [TrainingSequence("a", PROMPT, (TargetSpan(" (A) yes", LAMBDA),))]
    )
    assert text_of(tok, parts(row)[2][:-1]) == " (A) yes"


@pytest.mark.parametrize("name", FAMILIES)
def test_date_of_prompt_is_fixed(name):
    """Otherwise a template with the current date would change the prompt every day."""
    today = datetime.now().strftime("%d %b %Y")
    tok = make_tokenizer(FAMILIES[name])
    tok.chat_template = tok.chat_template or FALLBACK_TEMPLATE
    assert today not in render_prompt(tok, PROMPT)


@pytest.mark.parametrize("name", FAMILIES)
def test_exported_template_changes_only_if_needed(name):
    tok = make_tokenizer(FAMILIES[name])
    tok.chat_template = tok.chat_template or FALLBACK_TEMPLATE
    changed = make_self_contained(tok) != tok.chat_template
    assert changed == (name in ("qwen3", "llama3", "r1"))
