"""For each family that people bring: which tokens a row holds and which of them are learnt."""

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
from chat_template_cases import ASKED, FAMILIES, make_tokenizer

PROMPT = render_cot_prompt(Example("a", "Who holds the box ?"))
RATIONALE, ANSWER, LAMBDA = "Bob gives the box to Ann .", "Ann", 0.25
ROW = TrainingSequence("a", PROMPT, build_cot_target(RATIONALE, ANSWER, LAMBDA))
TOKENIZERS = {name: make_tokenizer(family) for name, family in FAMILIES.items()}


@pytest.fixture(params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


@pytest.fixture
def tok(family):
    """As `load` leaves it: with a template and something to pad with."""
    tok = make_tokenizer(family)
    tok.chat_template = tok.chat_template or FALLBACK_TEMPLATE
    if tok.pad_token_id is None:
        tok.pad_token = tok.eos_token
    return tok


def text_of(tok, ids):
    """The text of a continuation, special tokens included."""
    behind = tok("x", add_special_tokens=False)["input_ids"]
    return tok.decode([*behind, *ids], skip_special_tokens=False)[1:]


def parts(row):
    """(prompt, rationale, answer with end) of a row's ids, by their weights alone."""
    return [
        [i for i, w in zip(row.ids, row.weights, strict=True) if w == weight]
        for weight in (0.0, 1.0, LAMBDA)
    ]


def swallowed(family, text):
    """The text without the white space that the family's special tokens swallow."""
    for token in family.specials if family.rstrip else ():
        head, *rest = text.split(token)
        text = token.join([head, *(part.lstrip() for part in rest)])
    return text


def test_a_prompt_is_what_the_family_was_taught(family, tok):
    assert PROMPT[0].content == ASKED
    assert render_prompt(tok, PROMPT) == family.prompt


def test_every_token_of_a_row_is_prompt_reasoning_answer_or_end(family, tok):
    (row,) = tokenize_sequences(tok, [ROW])
    prompt, rationale, answer = parts(row)
    assert list(row.ids) == [*prompt, *rationale, *answer]  # in this order, each in one piece
    assert text_of(tok, rationale) == f"{RATIONALE}\n"
    assert text_of(tok, answer[:-1]) == f"Answer: {ANSWER}"
    assert tok.convert_ids_to_tokens(answer[-1]) == family.end
    shown = tok.decode(prompt, skip_special_tokens=False)
    assert "".join(shown.split()) == "".join(swallowed(family, family.prompt).split())


def test_special_tokens_of_a_prompt_are_single_tokens(family, tok):
    (ids,) = tokenize_prompts(tok, [PROMPT])
    for token in family.specials:
        assert ids.count(tok.convert_tokens_to_ids(token)) == family.prompt.count(token), token
    assert tok.unk_token_id is None or tok.unk_token_id not in ids


def test_inference_sees_the_prompt_tokens_of_the_training(family, tok):
    (row,) = tokenize_sequences(tok, [ROW])
    (ids,) = tokenize_prompts(tok, [PROMPT])
    assert parts(row)[0] == ids
    tok.chat_template = make_self_contained(tok)
    asked = [{"role": "user", "content": ASKED}]
    plain = tok.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)
    assert plain["input_ids"] == ids  # without any setting


def test_the_end_is_learnt_and_padding_is_not(family, tok):
    """Also where both are one token: what counts is a token's place and never its id."""
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
    learnt, weights = batch.targets[own].tolist(), batch.weights[own].tolist()
    assert learnt == list(rows[1].ids[rows[1].n_prompt :])
    assert (learnt[-1], weights[-1]) == (end, LAMBDA)


def test_a_text_is_over_at_the_end_of_its_turn_and_of_the_text(family, tok):
    class Model:
        class generation_config:
            eos_token_id = None

    wanted = {tok.convert_tokens_to_ids(t) for t in (family.end, family.eos)}
    assert set(find_stop_ids(tok, Model)) == wanted


def test_a_thought_in_a_target_is_there_once_and_learnt(family, tok):
    thought = "<think>\nBob gives the box .\n</think>\n"
    (row,) = tokenize_sequences(
        tok, [TrainingSequence("a", PROMPT, build_cot_target(thought, ANSWER, LAMBDA))]
    )
    _, rationale, answer = parts(row)
    assert text_of(tok, rationale) == f"{thought}\n"
    assert text_of(tok, answer[:-1]) == f"Answer: {ANSWER}"
    whole = tok.decode(row.ids, skip_special_tokens=False)
    assert whole.count("Bob gives the box .") == 1
    assert whole.count("<think>") == 1 + family.prompt.count("<think>")
    assert whole.count("</think>") == whole.count("<think>")


def test_a_system_message_is_said_once_whether_the_family_has_a_place_for_it_or_not(family, tok):
    text = render_prompt(tok, (Message("system", "Be brief."), *PROMPT))
    assert text.count("Be brief.") == text.count(ASKED) == 1
    assert text.index("Be brief.") < text.index(ASKED)
    assert text.endswith(family.prompt[-9:])


def test_an_answer_that_begins_with_a_special_space_is_still_learnt_whole(family, tok):
    (row,) = tokenize_sequences(
        tok, [TrainingSequence("a", PROMPT, (TargetSpan(" (A) yes", LAMBDA),))]
    )
    assert text_of(tok, parts(row)[2][:-1]) == " (A) yes"


@pytest.mark.parametrize("name", FAMILIES)
def test_the_date_of_a_prompt_stands_still(name):
    """A template that writes the date would otherwise ask another question on every day."""
    today = datetime.now().strftime("%d %b %Y")
    tok = make_tokenizer(FAMILIES[name])
    tok.chat_template = tok.chat_template or FALLBACK_TEMPLATE
    assert today not in render_prompt(tok, PROMPT)


@pytest.mark.parametrize("name", FAMILIES)
def test_an_exported_template_is_changed_only_where_it_must_be(name):
    tok = make_tokenizer(FAMILIES[name])
    tok.chat_template = tok.chat_template or FALLBACK_TEMPLATE
    changed = make_self_contained(tok) != tok.chat_template
    assert changed == (name in ("qwen3", "llama3", "r1"))
