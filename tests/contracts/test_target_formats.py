"""The contract of every target format, and of one in a file of the user."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgekd.errors import InputError
from bridgekd.records import Example, Rationale
from bridgekd.stages.training_examples import build_training_sequence
from bridgekd.targets import TARGET_FORMATS
from bridgekd.variants import VariantRef

ANSWER_FIRST = """
from bridgekd.prompts import render_cot_prompt
from bridgekd.records import TrainingExample
from bridgekd.targets import TargetFormat

def build(example, rationale, answer, options):
    text = f"{answer}, because: {rationale.text}"
    return [TrainingExample(example.id, render_cot_prompt(example), text, None, rationale.source)]

TARGET_FORMAT = TargetFormat(
    name="answer_first", title="Answer first", summary="The answer, then why.", paper="",
    build=build,
)
"""
WORDS = st.sampled_from(["Ann", "has", "2.5", "red", "pens.", "So", "4!", "\n", "。"])
TEXTS = st.lists(WORDS, min_size=1, max_size=12).map(" ".join).filter(str.strip)
PENS = Example("pens", "How many pens?", "4")


@pytest.fixture(scope="module", params=[*TARGET_FORMATS.list_names(), "a file"])
def settings(request, tmp_path_factory):
    if request.param != "a file":
        return TARGET_FORMATS.resolve(VariantRef(name=request.param))
    path = tmp_path_factory.mktemp("format") / "answer_first.py"
    path.write_text(ANSWER_FIRST)
    return TARGET_FORMATS.resolve(VariantRef(file=str(path)))


def build_rows(settings, text):
    rationale = Rationale("pens", text, "4", "teacher", True)
    options = TARGET_FORMATS.parse_options(settings)
    return TARGET_FORMATS.load(settings).build(PENS, rationale, "4", options)


def get_losses(row):
    """Return the part of the target that has a loss."""
    target = "".join(span.text for span in build_training_sequence(row, 1.0).spans)
    return target[row.loss_start : row.loss_end]


def chunk(text, **options):
    ref = VariantRef.model_validate({"name": "chunks", **options})
    return [get_losses(row) for row in build_rows(TARGET_FORMATS.resolve(ref), text)]


@given(text=TEXTS)
def test_rows_name_their_question_and_author_and_have_a_loss(settings, text):
    rows = build_rows(settings, text)
    assert rows and rows == build_rows(settings, text)
    assert {(row.id, row.source) for row in rows} == {("pens", "teacher")}
    assert all(get_losses(row).strip() for row in rows)


def test_it_has_a_title_and_refuses_an_unknown_option(settings):
    variant = TARGET_FORMATS.load(settings)
    assert variant.title and variant.summary.endswith(".")
    if settings.content is None:
        ref = VariantRef.model_validate({"name": settings.name, "n_chnks": 2})
        with pytest.raises(InputError, match="unknown option 'n_chnks'"):
            TARGET_FORMATS.resolve(ref)


@given(text=TEXTS, splitter=st.sampled_from(["sentences", "even"]), n=st.integers(1, 9))
def test_chunks_are_the_target_without_gap_or_overlap(text, splitter, n):
    chunks = chunk(text, splitter=splitter, n_chunks=n)
    assert "".join(chunks) == f"{text}\nAnswer: 4"
    assert len(chunks) <= n and all(map(str.strip, chunks))


def test_chunks_are_as_the_options_say():
    text = "Ann has 2.5 l. Ben has 3 l.\nSo 5.5 l"
    parts = ["Ann has 2.5 l.", " Ben has 3 l.", "\nSo 5.5 l\nAnswer: 4"]
    assert chunk(text, n_chunks=9) == parts
    assert chunk(text, n_chunks=2) == [parts[0], parts[1] + parts[2]]
    assert chunk("a b c d e", splitter="even", n_chunks=2) == ["a b", " c d e\nAnswer: 4"]
