"""The page: self-contained, safe against what models write, honest in its headline."""

import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import numpy as np
import pytest

import bridgekd
from bridgekd.records import Example
from bridgekd.report.embedding_map import build_embedding_map
from bridgekd.report.embedding_plot import build_caption, get_color, plot_embedding_map, project
from bridgekd.report.headline import build_headline, find_leading_arm
from bridgekd.report.page import render_report
from bridgekd.report.plots import plot_accuracy_vs_spend
from bridgekd.report.tables import to_single_line
from bridgekd.stats.metrics import GroupAccuracy
from report_fixtures import HOSTILE, a_pair, a_row, make_arm, make_report_data, some_metrics
from selection_pools import rank, to_picks


def outward(page):
    """What a page would fetch from elsewhere."""
    without_names = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    return re.findall(r'(?:src|href)\s*=\s*"(?!#)|url\((?!#)|@import|<script', without_names)


def a_map(n=40, n_chosen=6, question="What is {}?"):
    """The map of a choice by bridge among random questions."""
    rows = np.random.default_rng(0).normal(size=(n, 5)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    pool = [Example(f"{i}", question.format(i), "a", domain="<clinic>") for i in range(n)]
    ids = [e.id for e in pool]
    ranking = to_picks(rank("bridge_greedy", ids, np.arange(n), rows, n_chosen), ids)
    return build_embedding_map(pool, rows, ranking, title="Selected by bridge", seed=0)


def titles(svg):
    """What each point of a map says, by the name of its mark."""
    found = {"circle": [], "path": []}
    for mark in ET.fromstring(svg).iter():
        name = mark.tag.rpartition("}")[2]
        if name in found:
            found[name].append(mark[0].text)
    return found


def test_a_page_needs_nothing_from_elsewhere():
    page, _ = render_report(make_report_data())
    assert not outward(page)


def test_what_a_model_wrote_is_shown_and_never_run():
    page, _ = render_report(make_report_data())
    assert "<script>" not in page
    assert "&lt;script&gt;x" in page


def test_page_and_markdown_hold_every_arm_with_its_interval():
    page, markdown = render_report(make_report_data())
    assert "56.0 % to 64.0 %" in page
    assert "| Bridge | 60.0 % | 56.0 % to 64.0 % | 600 | 200 | $0.2500 | 61 |" in markdown


def test_an_arm_that_was_not_asked_about_a_domain_says_so():
    clinic = GroupAccuracy(accuracy=0.5, ci95=(0.4, 0.6), n_test=300)
    partial = a_row("direct", 0.5, 0.4, 0.6, by_domain={"clinic": clinic})
    page, _ = render_report(make_report_data((a_row("bridge", 0.6, 0.56, 0.64), partial)))
    assert page.count("not asked") == 1


def test_two_budgets_of_an_arm_that_spent_the_same_are_drawn():
    rows = [a_row(f"bridge@{b} questions", 0.5, 0.4, 0.6) for b in (100, 200)]
    assert plot_accuracy_vs_spend(rows).count("<title>") == 2


@pytest.mark.parametrize(
    ("bridge", "direct", "p", "verdict"),
    [
        ((0.6, 0.56, 0.64), (0.55, 0.51, 0.59), 1e-5, "bridge is better (p = 1e-05"),
        ((0.6, 0.56, 0.64), (0.58, 0.54, 0.62), 0.3, "does not show a difference (p = 0.3"),
        ((0.4, 0.36, 0.44), (0.6, 0.56, 0.64), 1e-9, "bridge is worse (p = 1e-09"),
    ],
)
def test_the_headline_follows_the_paired_test(bridge, direct, p, verdict):
    arms = {"bridge": make_arm("bridge", *bridge), "direct": make_arm("direct", *direct)}
    metrics = some_metrics(arms, pairs=(a_pair("direct", "bridge", p),))
    assert verdict in build_headline(metrics, "bridge")


def test_the_headline_is_about_the_recipe_s_method_at_its_largest_budget():
    labels = ("direct@5%", "direct@10%", "bridge@5%", "bridge@10%")
    metrics = some_metrics(
        {label: make_arm(label.partition("@")[0], 0.5, 0.4, 0.6) for label in labels}
    )
    assert find_leading_arm(metrics, ["direct", "bridge"]) == "bridge@10%"


def test_an_unknown_method_has_a_headline_too():
    metrics = some_metrics({"mine": make_arm("mine", 0.5, 0.4, 0.6)})
    assert find_leading_arm(metrics, ["mine"]) == "mine"
    assert build_headline(metrics, "mine").startswith("mine answers 50.0 % of 600")


def test_a_run_without_a_trained_student_says_so():
    metrics = some_metrics(
        {"student_base": make_arm("student_base", 0.5, 0.4, 0.6, is_trained=False)}
    )
    assert find_leading_arm(metrics, ["base"]) is None
    assert build_headline(metrics, None) == "No trained student was evaluated."


def test_a_projection_of_a_plane_keeps_all_distances():
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(30, 2)) * (3, 1)
    turned = plane @ np.linalg.qr(rng.normal(size=(7, 7)))[0][:2] + rng.normal(size=7)
    found, shares = project(turned, turned)
    distances = [np.linalg.norm(rows[:, None] - rows[None], axis=2) for rows in (plane, found)]
    assert np.allclose(*distances)
    assert shares[0] > shares[1] and sum(shares) == pytest.approx(1)


def test_a_projection_does_not_depend_on_the_order_of_the_sample():
    rows = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    found, _ = project(rows, rows)
    assert np.array_equal(found, project(rows, rows)[0])
    assert np.allclose(found, project(rows[::-1], rows)[0])


@pytest.mark.parametrize("rows", [np.ones((4, 3)), np.ones((1, 3)), np.ones((4, 1))])
def test_where_nothing_varies_all_is_at_the_middle(rows):
    found, shares = project(rows, rows)
    assert not found.any()
    assert shares == (0, 0)


def test_every_pick_is_on_the_map_with_its_question_and_drawn_last():
    svg = plot_embedding_map(a_map())
    told = titles(svg)
    assert sorted(told["path"]) == [
        f"Selected as number {k}, difficulty {m.difficulty:.2f}, <clinic>: {m.question}"
        for k, m in enumerate(a_map().selected, start=1)
    ]
    assert len(told["circle"]) == 34
    assert svg.rindex("<circle") < svg.index("<path")


def test_a_map_shows_no_more_than_its_share_and_says_so():
    story = a_map(n=2600, n_chosen=600)
    assert (len(story.points), len(story.selected)) == (1500, 500)
    assert [p.rank for p in story.selected] == list(range(500))
    assert "500 of 600 selected ones and 1,500 of 2,000 others" in build_caption(story)


def test_a_map_is_the_same_every_time():
    assert plot_embedding_map(a_map(n=1700)) == plot_embedding_map(a_map(n=1700))


def test_a_map_of_a_pool_that_is_all_picked_is_drawn():
    assert len(titles(plot_embedding_map(a_map(n=3, n_chosen=3)))["path"]) == 3


def test_a_question_on_the_map_is_text_and_nothing_else():
    page, _ = render_report(make_report_data(embedding_maps=(a_map(question=HOSTILE),)))
    assert not outward(page)
    assert not re.search("[\x00-\x08\u202a-\u202e]", page)
    assert "&lt;script&gt;alert(" in page
    ET.fromstring(plot_embedding_map(a_map(question=HOSTILE)))


def test_a_long_question_is_cut():
    assert to_single_line("a\n b") == "a b"
    assert to_single_line("a" * 160) == "a" * 160
    assert to_single_line("a" * 161) == "a" * 159 + "…"
    assert to_single_line(" " * 9999 + "a") == "…"


def test_the_harder_the_darker():
    levels = [sum(bytes.fromhex(get_color(d)[1:])) for d in np.linspace(0, 1, 20)]
    assert all(a > b for a, b in pairwise(levels))
    assert (get_color(-1), get_color(2)) == (get_color(0), get_color(1))


def test_a_run_s_report_maps_its_choice(tiny):
    page = bridgekd.run(tiny).report.read_text()
    assert page.count("difficulty") > 60
    assert "12 of 12 selected ones and 48 of 48 others" in page
    assert not outward(page)


def test_a_choice_without_a_scored_pool_has_no_map(tiny):
    page = bridgekd.run(tiny, methods=["direct"]).report.read_text()
    assert "Selected questions" not in page


def test_a_random_choice_in_a_scored_pool_has_a_map(tiny):
    page = bridgekd.run(tiny, methods=["bridge_random"]).report.read_text()
    assert "12 of 12 selected ones" in page
