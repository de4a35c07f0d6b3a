"""The page is self-contained and safe against model output; its headline follows the results."""

import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import numpy as np
import pytest

import bridgekd
from bridgekd.records import Example
from bridgekd.report.embedding_map import build_embedding_map, project
from bridgekd.report.embedding_plot import compute_layout, get_color
from bridgekd.report.headline import build_headline, find_leading_arm
from bridgekd.report.page import render_report
from bridgekd.report.tables import escape_cell, to_single_line
from bridgekd.stats.chance_baseline import ChanceBaseline
from bridgekd.stats.metrics import GroupAccuracy
from report_fixtures import HOSTILE, PLOTS, a_pair, make_arm, make_report_data, some_metrics
from selection_pools import rank, to_picks


def find_external(page):
    """Everything that a page would load from another address."""
    without_names = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    return re.findall(r'(?:src|href)\s*=\s*"(?!#)|url\((?!#)|@import|<script', without_names)


def a_map(n=40, n_selected=6, question="What is {}?"):
    """The map of a selection by BRIDGE among random questions."""
    rows = np.random.default_rng(0).normal(size=(n, 5)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    pool = [Example(f"{i}", question.format(i), "a", domain="<clinic>") for i in range(n)]
    ids = [e.id for e in pool]
    ranking = to_picks(rank("bridge_greedy", ids, np.arange(n), rows, n_selected), ids)
    return build_embedding_map(pool, rows, ranking, title="Selection: BRIDGE", seed=0)


def draw_map(data):
    return PLOTS.embedding_map(data, compute_layout(data))


def titles(svg):
    """The tooltips of the points of a map, by the name of their element."""
    tooltips = {"circle": [], "path": []}
    for mark in ET.fromstring(svg).iter():
        name = mark.tag.rpartition("}")[2]
        if name in tooltips:
            tooltips[name].append(mark[0].text)
    return tooltips


def test_page_loads_nothing_from_another_address():
    page, _ = render_report(make_report_data())
    assert not find_external(page)


def test_model_output_is_shown_and_never_executed():
    page, _ = render_report(make_report_data())
    assert "<script>" not in page
    assert "&lt;script&gt;x" in page


def test_frequent_answer_is_only_text_in_markdown():
    """It is in the headline and in a note, which are escaped as cells are."""
    answer = "a<b onclick=1>|[x](http://y)*_`"
    arms = {"bridge": make_arm("bridge", 0.2, 0.1, 0.3, title="Bridge")}
    metrics = some_metrics(arms, chance=ChanceBaseline(0.25, f"always answering {answer!r}"))
    headline = build_headline(metrics, "bridge")
    _, markdown = render_report(make_report_data(metrics=metrics, headline=headline))
    assert answer in headline and answer not in markdown
    assert markdown.count(escape_cell(answer)) == 2


def test_page_and_markdown_have_every_arm_with_its_interval():
    page, markdown = render_report(make_report_data())
    assert "56.0 % to 64.0 %" in page
    assert "| Bridge | 60.0 % | 56.0 % to 64.0 % | 600 | 200 | $0.2500 | 61 |" in markdown


def test_domain_without_questions_for_an_arm_is_marked():
    clinic = GroupAccuracy(accuracy=0.5, ci95=(0.4, 0.6), n_test=300)
    partial = make_arm("direct", 0.5, 0.4, 0.6, by_domain={"clinic": clinic})
    page, _ = render_report(make_report_data((make_arm("bridge", 0.6, 0.56, 0.64), partial)))
    assert page.count("not evaluated") == 1


def test_two_budgets_with_equal_spend_are_both_drawn():
    arms = [make_arm("bridge", 0.5, 0.4, 0.6, title=f"BRIDGE, {b}") for b in (100, 200)]
    assert PLOTS.accuracy_vs_spend([tuple(arms)]).count("<title>") == 2


@pytest.mark.parametrize(
    ("bridge", "direct", "p", "verdict"),
    [
        ((0.6, 0.56, 0.64), (0.55, 0.51, 0.59), 1e-5, "bridge is better (p = 1e-05"),
        ((0.6, 0.56, 0.64), (0.58, 0.54, 0.62), 0.3, "does not show a difference (p = 0.3"),
        ((0.4, 0.36, 0.44), (0.6, 0.56, 0.64), 1e-9, "bridge is worse (p = 1e-09"),
    ],
)
def test_headline_follows_paired_test(bridge, direct, p, verdict):
    arms = {"bridge": make_arm("bridge", *bridge), "direct": make_arm("direct", *direct)}
    metrics = some_metrics(arms, pairs=(a_pair("direct", "bridge", p),))
    assert verdict in build_headline(metrics, "bridge")


def test_headline_is_about_method_of_recipe_at_its_largest_budget():
    labels = ("direct@5%", "direct@10%", "bridge@5%", "bridge@10%")
    metrics = some_metrics(
        {label: make_arm(label.partition("@")[0], 0.5, 0.4, 0.6) for label in labels}
    )
    assert find_leading_arm(metrics, ["direct", "bridge"]) == "bridge@10%"


def test_method_outside_bridgekd_has_a_headline():
    metrics = some_metrics({"mine": make_arm("mine", 0.5, 0.4, 0.6)})
    assert find_leading_arm(metrics, ["mine"]) == "mine"
    assert build_headline(metrics, "mine").startswith("mine answers 50.0 % of 600")


def test_run_without_trained_student_has_its_own_headline():
    metrics = some_metrics(
        {"student_base": make_arm("student_base", 0.5, 0.4, 0.6, is_trained=False)}
    )
    assert find_leading_arm(metrics, ["base"]) is None
    assert build_headline(metrics, None) == "No trained student was evaluated."


def test_projection_of_a_plane_keeps_all_distances():
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(30, 2)) * (3, 1)
    turned = plane @ np.linalg.qr(rng.normal(size=(7, 7)))[0][:2] + rng.normal(size=7)
    projected, variance = project(turned, turned)
    distances = [np.linalg.norm(rows[:, None] - rows[None], axis=2) for rows in (plane, projected)]
    assert np.allclose(*distances)
    assert variance[0] > variance[1] and sum(variance) == pytest.approx(1)


def test_a_projection_does_not_depend_on_the_order_of_the_sample():
    rows = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    projected, _ = project(rows, rows)
    assert np.array_equal(projected, project(rows, rows)[0])
    assert np.allclose(projected, project(rows[::-1], rows)[0])


@pytest.mark.parametrize("rows", [np.ones((4, 3)), np.ones((1, 3)), np.ones((4, 1))])
def test_points_without_variance_are_in_the_middle(rows):
    projected, variance = project(rows, rows)
    assert not projected.any()
    assert variance == (0, 0)


def test_selected_questions_are_on_the_map_and_drawn_last():
    svg = draw_map(a_map())
    tooltips = titles(svg)
    assert sorted(tooltips["path"]) == [
        f"Selected as number {k}, difficulty {m.difficulty:.2f}, <clinic>: {m.question}"
        for k, m in enumerate(a_map().selected, start=1)
    ]
    assert len(tooltips["circle"]) == 34
    assert svg.rindex("<circle") < svg.index("<path")


def test_map_shows_a_sample_and_its_size():
    data = a_map(n=2600, n_selected=600)
    assert (len(data.points), len(data.selected)) == (1500, 500)
    assert [p.rank for p in data.selected] == list(range(500))
    assert "500 of 600 selected questions and 1,500 of 2,000 others" in data.caption


def test_a_map_is_the_same_every_time():
    assert draw_map(a_map(n=1700)) == draw_map(a_map(n=1700))


def test_map_of_completely_selected_pool_is_drawn():
    assert len(titles(draw_map(a_map(n=3, n_selected=3)))["path"]) == 3


def test_question_on_the_map_is_only_text():
    page, _ = render_report(make_report_data(embedding_maps=(a_map(question=HOSTILE),)))
    assert not find_external(page)
    assert not re.search("[\x00-\x08\u202a-\u202e]", page)
    assert "&lt;script&gt;alert(" in page
    ET.fromstring(draw_map(a_map(question=HOSTILE)))


def test_a_long_question_is_cut():
    assert to_single_line("a\n b") == "a b"
    assert to_single_line("a" * 160) == "a" * 160
    assert to_single_line("a" * 161) == "a" * 159 + "…"
    assert to_single_line(" " * 9999 + "a") == "…"


def test_harder_questions_are_darker():
    levels = [sum(bytes.fromhex(get_color(d)[1:])) for d in np.linspace(0, 1, 20)]
    assert all(a > b for a, b in pairwise(levels))
    assert (get_color(-1), get_color(2)) == (get_color(0), get_color(1))


def test_report_of_a_run_has_a_map_of_its_selection(tiny):
    page = bridgekd.run(tiny).report.read_text()
    assert page.count("difficulty") > 60
    assert "12 of 12 selected questions and 48 of 48 others" in page
    assert not find_external(page)


def test_selection_without_scores_has_no_map(tiny):
    page = bridgekd.run(tiny, methods=["direct"]).report.read_text()
    assert "Selected questions</h2>" not in page


def test_random_selection_in_a_scored_pool_has_a_map(tiny):
    page = bridgekd.run(tiny, methods=["bridge_random"]).report.read_text()
    assert "12 of 12 selected questions" in page
