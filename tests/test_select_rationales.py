"""Several rationales per question, and which of them the student learns from."""

from collections import Counter

import pytest
import torch

import bridgekd
from bridgekd import lm
from bridgekd.errors import InputError
from bridgekd.grading.reasoning_steps import find_sentence_ends
from bridgekd.io.row_files import read_rows
from bridgekd.lm.forward import ScoringRow, compute_row_means, token_nll
from bridgekd.lm.rationale_scores import score_sentences
from bridgekd.lm.tokenization import tokenize_continuations, tokenize_prompts
from bridgekd.prompts import render_cot_prompt
from bridgekd.records import Example, Rationale
from tiny_models import write_tiny

EXAMPLE = Example("a", "Who holds the red box ?", "Ann")


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    return lm.load_model(write_tiny(tmp_path_factory.mktemp("model")), device="cpu")


def run_bridge(tiny, *overrides):
    """Return the rows of every rationale artifact by stage, and the arms."""
    sets = ["annotate.filter=all", "select.strategy=random", *overrides]
    result = bridgekd.run(tiny, overrides=sets, methods=["bridge"])
    store = next(tiny.parent.glob("*/train_student-*")).parent
    rows = {
        file.parent.name.partition("-")[0]: read_rows(file, Rationale)
        for file in store.glob("*/rationales.parquet")
    }
    return rows, result.metrics.arms


def test_shortest_of_several_samples_is_kept_beside_the_teachers(tiny):
    rows, arms = run_bridge(
        tiny, "annotate.n_samples=3", "student.rationales=both", "student.selector=shortest",
        "student.shorten={n_chunks: 3}",
    )  # fmt: skip
    samples, selected = rows["sample_rationales"], rows["select_rationales"]
    by_question = Counter(row.id for row in samples)
    assert set(by_question.values()) == {3}
    assert {row.source for row in selected} == {"teacher", "assistant"}
    kept = Counter(row.id for row in selected if row.kept)
    assert set(kept.values()) == {1}
    candidates = {row.id for row in [*samples, *rows["check_rationales"]] if row.kept}
    assert kept.keys() == candidates
    shortened = rows["shorten_rationales"]
    assert [(r.id, r.kept) for r in shortened] == [(r.id, r.kept) for r in selected]
    assert all(len(a.text) <= len(b.text) for a, b in zip(shortened, selected, strict=True))
    assert any(row.reason == "not shortest" for row in selected)
    assert arms["bridge"].n_queries > 0


@pytest.mark.parametrize("selector", ["confident", "assistant_like"])
def test_selectors_that_ask_models_run(tiny, selector):
    rows, _ = run_bridge(tiny, "annotate.n_samples=2", f"student.selector={selector}")
    kept = Counter(row.id for row in rows["select_rationales"] if row.kept)
    assert kept and set(kept.values()) == {1}


def test_defaults_train_on_the_artifact_of_the_assistant(tiny):
    rows, _ = run_bridge(tiny)
    assert "select_rationales" not in rows and "sample_rationales" not in rows
    assert rows["annotate"]


def test_student_of_the_teachers_rationales_needs_none_of_the_assistant(task, monkeypatch):
    monkeypatch.chdir(task)

    def list_stages(source):
        sets = [f"student.rationales={source}", "select.n_rounds=2"]
        return [a.stage for a in bridgekd.plan("task.yaml", overrides=sets).stages]

    assert list_stages("both").count("annotate") == 1
    assert "annotate" not in list_stages("teacher")
    assert list_stages("teacher").count("check_rationales") == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (["annotate.filter=self_consistent", "annotate.n_samples=1"], "1 is no vote"),
        (["annotate.filter=confident", "annotate.n_samples=2"], "one rationale per question"),
        (["student.selector=shortst"], "Unknown selector 'shortst'. Did you mean 'shortest'"),
    ],
)
def test_impossible_selection_is_refused(tiny, override, message):
    with pytest.raises(InputError, match=message):
        bridgekd.plan(tiny, overrides=override)


def test_sentences_have_the_mean_probability_of_their_tokens(local):
    text = "Ann holds the red box . Ben holds it ! So\nit is Ann"
    ends = find_sentence_ends(text)
    assert [text[a:b].strip() for a, b in zip([0, *ends], ends, strict=False)] == [
        "Ann holds the red box .", "Ben holds it !", "So", "it is Ann",
    ]  # fmt: skip
    ((*scores,),) = score_sentences(local, [(EXAMPLE, text)], batch_size=2)
    (prompt,) = tokenize_prompts(local.tokenizer, [render_cot_prompt(EXAMPLE)])
    starts = tokenize_continuations(local.tokenizer, [text[:end] for end in ends])
    expected, before = [], 0
    for ids in starts:
        row = ScoringRow((*prompt, *ids), (True,) * len(prompt), len(ids) - before)
        means, _ = compute_row_means(local, [row], token_nll)
        expected.append(float(torch.exp(-means)))
        before = len(ids)
    assert scores == pytest.approx(expected, rel=1e-4)


def test_blank_text_has_no_sentence(local):
    assert score_sentences(local, [(EXAMPLE, " "), (EXAMPLE, "Ann")], batch_size=1)[0] == []
