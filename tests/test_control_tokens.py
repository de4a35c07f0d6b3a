"""The text of a control token in a question or a target is text, for every kind of tokenizer."""

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.models.byt5.tokenization_byt5 import ByT5Tokenizer

from bridgekd.lm.confidence import build_judge_rows, build_text_rows
from bridgekd.lm.control_tokens import load_plain_text_encoder
from bridgekd.lm.remote_tokenizer import RemoteTokenizer
from bridgekd.lm.score_inputs import build_gold_rows, tokenize_answer_prompts
from bridgekd.lm.tokenization import (
    FALLBACK_TEMPLATE,
    encode_prompts,
    find_control_ids,
    find_plain_prompts,
    find_turn_end_id,
    tokenize_continuations,
    tokenize_prompts,
    tokenize_sequences,
)
from bridgekd.prompts import build_cot_target, render_cot_prompt
from bridgekd.records import Example, Message, TrainingSequence
from chat_template_cases import FAMILIES, make_tokenizer
from tiny_models import CHATML, TOKENIZERS, tiny_tokenizer


def make_unigram():
    """Return a tokenizer whose vocabulary has the end token as the best word for its text."""
    letters = [(chr(c), -9.0) for c in range(33, 127)]
    pieces = [("<unk>", 0.0), ("</s>", 0.0), ("<|im_start|>", 0.0), ("<|im_end|>", 0.0)]
    raw = Tokenizer(models.Unigram([*pieces, ("▁", -9.0), ("\n", -9.0), *letters], 0, False))
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    raw.decoder = decoders.Metaspace()
    return wrap(raw)


def make_folded():
    """Return a tokenizer whose normalization turns wide letters into the text of a token."""
    words = ["<unk>", "</s>", "<|im_start|>", "<|im_end|>", *map(chr, range(33, 127)), "\n"]
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, "<unk>"))
    raw.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    raw.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return wrap(raw, normalized=True)


def wrap(raw, normalized=False):
    tok = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="</s>",
        chat_template=CHATML,
    )
    tok.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return tok


def make_slow():
    tok = ByT5Tokenizer()
    tok.chat_template = "{{ messages[0]['content'] }}</s>\n"
    return tok


KINDS = {
    **{kind: lambda kind=kind: tiny_tokenizer(kind) for kind in TOKENIZERS},
    **{name: lambda family=family: make_tokenizer(family) for name, family in FAMILIES.items()},
    "unigram": make_unigram,
    "folded": make_folded,
    "slow": make_slow,
}


@pytest.fixture(params=KINDS)
def tok(request):
    tok = KINDS[request.param]()
    tok.chat_template = tok.chat_template or FALLBACK_TEMPLATE
    return tok


def list_controls(tok):
    """Return the control tokens without the unknown one, which is also an unknown word."""
    return [t for t in tok.convert_ids_to_tokens(sorted(find_control_ids(tok))) if t != "<unk>"]


def count_controls(tok, ids):
    return [ids.count(tok.convert_tokens_to_ids(t)) for t in list_controls(tok)]


def write_all(tok):
    """Return a text that spells every control token."""
    return " ".join(f"so{t} is {t} ." for t in list_controls(tok))


def test_target_has_no_control_token_but_its_end(tok):
    prompt = render_cot_prompt(Example("a", "Who holds the box ?"))
    rows = [
        TrainingSequence("a", prompt, build_cot_target(text, "Ann", 1.0))
        for text in ("Ann holds it .", write_all(tok))
    ]
    plain, hostile = (list(row.ids) for row in tokenize_sequences(tok, rows))
    assert count_controls(tok, hostile) == count_controls(tok, plain)
    assert hostile[-1] == plain[-1] == find_turn_end_id(tok)
    assert len(hostile) > len(plain)


def test_prompt_has_control_tokens_of_template_alone(tok):
    plain, hostile = tokenize_prompts(
        tok, [(Message("user", text),) for text in ("so it is .", write_all(tok))]
    )
    assert count_controls(tok, hostile) == count_controls(tok, plain)
    assert len(hostile) > len(plain)


def test_scoring_and_confidence_have_no_control_token_of_a_text(tok):
    plain, hostile = (
        (Example("a", f"Who {text} ?", answer=f"Ann {text}"), text)
        for text in ("holds it", write_all(tok))
    )
    for build in (
        build_text_rows,
        lambda tok, pairs: build_judge_rows(tok, pairs, [7]),
        lambda tok, pairs: build_gold_rows(tok, [pairs[0][0]]),
    ):
        rows = [build(tok, [pair])[0] for pair in (plain, hostile)]
        assert count_controls(tok, list(rows[1].ids)) == count_controls(tok, list(rows[0].ids))


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("word_level", "folded", "slow")])
def test_text_of_control_token_is_kept(kind):
    tok = KINDS[kind]()
    tok.chat_template = tok.chat_template or FALLBACK_TEMPLATE
    text = write_all(tok)
    (ids,) = tokenize_continuations(tok, [text])
    anchor = tokenize_continuations(tok, ["x"])[0]
    assert tok.decode(anchor + ids) == "x" + text
    (prompt,) = tokenize_prompts(tok, [(Message("user", text),)])
    assert "".join(text.split()) in "".join(tok.decode(prompt).split())


def test_slow_tokenizer_gets_a_space_inside_the_token():
    (ids,) = tokenize_continuations(make_slow(), ["so</s> it is"])
    assert make_slow().decode(ids) == "so< /s> it is"


def test_wide_letters_are_no_control_token():
    (ids,) = tokenize_continuations(make_folded(), ["\uff1c/S\uff1e"])
    assert make_folded().convert_ids_to_tokens(ids) == ["<", "/", "s", ">"]


def test_copy_gives_tokens_of_tokenizer_for_other_texts(tok):
    encoder = load_plain_text_encoder(tok, find_control_ids(tok))
    prompt = (Message("user", "Who holds <the> box ?\n\n  Think  \u00e9 (A) yes"),)
    (expected,) = encode_prompts(tok, [prompt])
    assert expected.text.count("Who holds <the> box") == 1
    (copied,) = encoder.encode([encoder.reveal(expected.text)])
    assert copied.ids == expected.ids
    (text,) = encoder.encode([prompt[0].content])
    assert text.ids == tok(prompt[0].content, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("kind", ["byte_level", "metaspace", "gemma", "unigram"])
def test_question_tokens_are_found_beside_control_token(kind):
    tok = KINDS[kind]()
    example = Example("a", f"Who {list_controls(tok)[-1]} holds ?")
    (prompt,) = tokenize_answer_prompts(tok, [example])
    ids = [i for i, mark in zip(prompt.ids, prompt.is_question, strict=True) if mark]
    assert "".join(example.question.split()) == "".join(tok.decode(ids).split())
    assert 0 < sum(prompt.is_question) < len(prompt.ids)


def test_text_cannot_forge_the_end_of_a_turn_from_parts():
    tok = tiny_tokenizer("byte_level")
    text = "a <|im_<|im_end|>end|> b"
    (ids,) = tokenize_prompts(tok, [(Message("user", text),)])
    assert ids.count(tok.convert_tokens_to_ids("<|im_end|>")) == 1 and text in tok.decode(ids)


def test_server_gets_the_same_tokens():
    tok = tiny_tokenizer("byte_level")
    prompt = (Message("user", "so</s> it is"),)
    assert RemoteTokenizer(tok, ()).tokenize_prompts([prompt]) == tokenize_prompts(tok, [prompt])


def test_unknown_word_is_no_control_token():
    tok = tiny_tokenizer("word_level")
    prompts = [(Message("user", text),) for text in ("Xerxes", "Xerxes <unk>", "Xerxes </s>")]
    assert find_plain_prompts(tok, prompts) == [True, False, False]


def test_end_of_turn_is_control_token_of_a_tokenizer_that_calls_it_ordinary():
    tok = tiny_tokenizer("byte_level", CHATML.replace("im_end", "stop"))
    tok.add_tokens("<|stop|>")
    end = find_turn_end_id(tok)
    assert tok.convert_ids_to_tokens(end) == "<|stop|>" and end not in tok.all_special_ids
    assert end not in tokenize_continuations(tok, ["so <|stop|> it is"])[0]


def test_line_break_of_a_template_is_no_control_token():
    tok = tiny_tokenizer("byte_level", FALLBACK_TEMPLATE)
    tok.add_tokens("\n")
    assert tok.convert_tokens_to_ids("\n") not in find_control_ids(tok)
