"""pass@k: the estimator, its interval, and the stage that samples the answers."""

import io
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from rich.console import Console

import bridgekd
from bridgekd import api
from bridgekd.cli.render_metrics import print_metrics
from bridgekd.io.artifact_store import Artifact
from bridgekd.io.row_files import append_jsonl, read_appended_jsonl, read_rows
from bridgekd.recipe import RuntimeOptions
from bridgekd.records import SampledAnswer
from bridgekd.stages.sample_answers import SampleAnswersSettings, sample_answers
from bridgekd.stats.metrics import MeanEstimate, PassMetrics
from bridgekd.stats.mixed_effects import estimate_fraction, estimate_proportion
from bridgekd.stats.pass_at_k import SampleCounts, estimate_pass_at_k, summarize_samples
from report_fixtures import make_arm, make_report_data, some_metrics
from test_resumable_generation import CONTEXT


@pytest.mark.parametrize("n", range(1, 7))
def test_estimate_is_the_share_of_subsets_with_a_correct_sample(n):
    """Chen et al. 2021 (arXiv 2107.03374), equation 1; with n - c < k every subset has one."""
    for n_correct in range(n + 1):
        samples = [True] * n_correct + [False] * (n - n_correct)
        for k in range(1, n + 1):
            subsets = [any(subset) for subset in combinations(samples, k)]
            expected = sum(subsets) / len(subsets)
            assert estimate_pass_at_k(n, n_correct, k) == pytest.approx(expected)
            if n - n_correct < k:
                assert estimate_pass_at_k(n, n_correct, k) == 1


@pytest.mark.parametrize("k", [0, 5])
def test_more_answers_than_samples_cannot_be_estimated(k):
    with pytest.raises(ValueError, match=f"pass@{k} needs"):
        estimate_pass_at_k(4, 1, k)


def test_estimate_is_unbiased_where_the_share_of_solved_questions_is_not():
    rng = np.random.default_rng(0)
    counts = rng.binomial(8, 0.2, size=20_000)
    estimates = [estimate_pass_at_k(8, int(c), 4) for c in counts]
    true = 1 - 0.8**4
    assert np.mean(estimates) == pytest.approx(true, abs=0.005)
    assert abs(np.mean(1 - (1 - counts / 8) ** 4) - true) > 0.03  # plugging in c / n is biased


def test_pass_at_k_is_averaged_over_questions_and_seeds():
    first = SampleCounts(4, 0.7, {"a": 0, "b": 1, "c": 4, "d": 2})
    second = SampleCounts(4, 0.7, {"a": 4, "b": 4, "c": 4, "d": 4})
    figures = summarize_samples([first], list("abcd"))
    assert (figures.n_samples, list(figures.pass_at_k)) == (4, [1, 4])
    assert figures.pass_at_k[1].mean == pytest.approx(7 / 16)
    assert figures.pass_at_k[4].mean == 0.75
    assert summarize_samples([first, second], ["a", "b"]).pass_at_k[1].mean == 0.5625
    assert summarize_samples([first, None], ["a"]) is None and summarize_samples([None], []) is None


def test_interval_of_fractions_stays_in_0_to_1_and_is_narrower_than_that_of_0_and_1():
    certain = estimate_fraction(np.ones((1, 40)))
    assert certain.high == 1 and 0.9 < certain.low < 1
    fractions = np.tile([0.4, 0.6], (1, 50))
    narrow, wide = estimate_fraction(fractions), estimate_proportion(np.tile([0.0, 1.0], (1, 50)))
    assert narrow.mean == pytest.approx(wide.mean)
    assert 0.47 < narrow.low < narrow.high < 0.53 and wide.high > 0.59


@pytest.fixture(scope="module")
def sampled(world_files, tmp_path_factory):
    """A finished run of the base models with four samples, and its recipe."""
    tmp_path = tmp_path_factory.mktemp("sampled")
    recipe = tmp_path / "tiny.yaml"
    for name in ("train.jsonl", "test.jsonl", "model"):
        (tmp_path / name).symlink_to(world_files / name)
    recipe.write_text(
        "data: {train: train.jsonl, test: test.jsonl, columns: {id: id}, validation_size: 0}\n"
        "teacher: {model: none, price: {input: 1, output: 1}}\n"
        "budget: {queries: 1}\nmethod: base_models\ndevice: cpu\n"
        "assistant: {model: model, max_new_tokens: 2}\nstudent: {model: model, max_new_tokens: 4}\n"
        "runtime: {assistant_batch_size: 32, student_batch_size: 32}\n"
        "evaluate: {n_samples: 4, temperature: 1}\n"
    )
    before = api.plan(recipe)
    assert [s.stage for s in before.stages if not s.done].count("sample_answers") == 1
    return recipe, bridgekd.run(recipe)


def test_students_are_sampled_and_shown(sampled):
    recipe, outcome = sampled
    arms = outcome.metrics.arms
    assert arms["assistant_base"].samples is None
    figures = arms["student_base"].samples
    (folder,) = (recipe.parent / "runs").glob("sample_answers-*")
    rows = read_rows(folder / "samples.parquet", SampledAnswer)
    assert [row.sample for row in rows] == [0, 1, 2, 3] * 20
    assert figures.pass_at_k[1].mean == pytest.approx(np.mean([row.correct for row in rows]))
    assert len({row.text for row in rows}) > 20
    assert "pass@4" in outcome.report.read_text()
    assert arms["student_base"].answers.tokens.mean <= 4


def test_stopped_sampling_resumes_after_its_last_batch(sampled, tmp_path):
    recipe, _ = sampled
    (folder,) = (recipe.parent / "runs").glob("sample_answers-*")
    made = Artifact("sample_answers", "", folder)
    model = Artifact("model", made.get_input("model").fingerprint, recipe.parent / "model")
    inputs = (made.get_input("pool"), made.get_input("test"), model)
    settings = made.read_settings(SampleAnswersSettings)
    context = replace(CONTEXT, runtime=RuntimeOptions(student_batch_size=32))
    file = tmp_path / "unfinished" / "samples.jsonl"
    file.parent.mkdir()

    def sample():
        sample_answers.function(tmp_path, settings, context, *inputs)
        return read_rows(tmp_path / "samples.parquet", SampledAnswer)

    rows = sample()
    assert rows == read_rows(folder / "samples.parquet", SampledAnswer)
    first, *_ = read_appended_jsonl(file)
    assert len(first) == 32 / 4
    file.unlink()
    append_jsonl(file, [[row, ["kept"] * 4, lengths] for row, _, lengths in first])
    kept = {row for row, *_ in first}
    texts = [row.text for row in rows]
    assert [row.text for row in sample()] == [
        "kept" if i // 4 in kept else text for i, text in enumerate(texts)
    ]
    assert len(read_appended_jsonl(file)) == 3


def make_sampled_arm():
    shares = {k: MeanEstimate(mean=0.25 * k, ci95=(0.2, 0.3)) for k in (1, 2)}
    samples = PassMetrics(n_samples=2, temperature=0.7, pass_at_k=shares)
    return make_arm("direct", 0.5, 0.46, 0.54, title="Direct", samples=samples)


def test_terminal_and_report_show_pass_at_k_beside_accuracy_with_the_number_of_samples():
    page = io.StringIO()
    arm = make_sampled_arm()
    metrics = some_metrics({"direct": arm, "teacher": make_arm("teacher", 0.9, 0.8, 1)})
    print_metrics(Console(file=page, width=80), metrics, "tiny")
    assert "pass@k: 2 samples per question, temperature 0.7." in page.getvalue()
    assert page.getvalue().split("pass@2")[1].split()[:4] == ["Direct", "50.0%", "25.0%", "50.0%"]
    from bridgekd.report.page import render_report

    _, markdown = render_report(make_report_data(metrics=metrics))
    assert "| Direct | 50.0 % (46.0 to 54.0) | 25.0 % (20.0 to 30.0) |" in markdown
