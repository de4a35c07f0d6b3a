"""The page: self-contained, safe against what models write, honest in its headline."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

import bridgekd
from bridgekd.core.crossed import Estimate
from bridgekd.records import Example
from bridgekd.report.charts import against_spend
from bridgekd.report.page import render
from bridgekd.report.pool_map import caption, colour, drawn_map, plain, projected
from bridgekd.stages.heading import headline
from bridgekd.stages.mapping import pool_map
from bridgekd.stages.naming import in_order
from selection_pools import rank, to_picks
from stories import HOSTILE, a_pair, a_story, an_arm, some_metrics


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
    return pool_map(pool, rows, ranking, title="Chosen by: bridge", rule="", seed=0)


def titles(svg):
    """What each point of a map says, by the name of its mark."""
    found = {"circle": [], "path": []}
    for mark in ET.fromstring(svg).iter():
        name = mark.tag.rpartition("}")[2]
        if name in found:
            found[name].append(mark[0].text)
    return found


def test_a_page_needs_nothing_from_elsewhere():
    page, _ = render(a_story())
    assert not outward(page)


def test_what_a_model_wrote_is_shown_and_never_run():
    page, _ = render(a_story())
    assert "<script>" not in page
    assert "&lt;script&gt;x" in page


def test_page_and_markdown_hold_every_arm_with_its_interval():
    page, markdown = render(a_story())
    assert "56.0 % to 64.0 %" in page
    assert "| Bridge | 60.0 % | 56.0 % to 64.0 % | 600 | 200 | $0.2500 | 61 |" in markdown


def test_an_arm_that_was_not_asked_about_a_domain_says_so():
    story = a_story()
    partial = an_arm("direct", 0.5, 0.4, 0.6, by_domain={"clinic": Estimate(0.5, 0.4, 0.6)})
    page, _ = render(a_story(arms=(*story.arms, partial)))
    assert page.count("not asked") == 1


def test_two_budgets_of_an_arm_that_spent_the_same_are_drawn():
    row = [an_arm(f"bridge@{b} questions", 0.5, 0.4, 0.6) for b in (100, 200)]
    assert against_spend(row).count("<title>") == 2


def test_a_share_of_the_gap_below_0_or_above_1_is_told_as_it_is():
    story = a_story()
    gain = replace(story.arms[1].gain, gap=Estimate(-0.2, -0.5, 0.1))
    _, markdown = render(a_story(arms=(story.arms[0], replace(story.arms[1], gain=gain))))
    assert "-20.0 % (-50.0 to 10.0)" in markdown


def test_the_model_whose_steps_were_counted_is_named():
    arms = tuple(an_arm(name, 0.5, 0.4, 0.6) for name in ("assistant_base", "assistant@5%"))
    _, markdown = render(a_story(arms=arms, steps_told_by="assistant"))
    assert "that of: Assistant@5%" in markdown


@pytest.mark.parametrize(
    ("bridge", "direct", "p", "verdict"),
    [
        ((0.6, 0.56, 0.64), (0.55, 0.51, 0.59), 1e-5, "the assistant paid off"),
        ((0.6, 0.56, 0.64), (0.58, 0.54, 0.62), 0.3, "does not show a difference"),
        ((0.4, 0.36, 0.44), (0.6, 0.56, 0.64), 1e-9, "the assistant did harm"),
    ],
)
def test_the_headline_follows_the_paired_test(bridge, direct, p, verdict):
    arms = {"bridge": an_arm("bridge", *bridge), "direct": an_arm("direct", *direct)}
    assert verdict in headline(arms, some_metrics(pairs=(a_pair("direct", "bridge", p),)))


def test_an_arm_without_a_title_comes_last():
    assert in_order(["new", "bridge", "another", "teacher"]) == [
        "teacher", "bridge", "another", "new"
    ]  # fmt: skip


def test_a_projection_of_a_plane_keeps_all_distances():
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(30, 2)) * (3, 1)
    turned = plane @ np.linalg.qr(rng.normal(size=(7, 7)))[0][:2] + rng.normal(size=7)
    found, shares = projected(turned, turned)
    distances = [np.linalg.norm(rows[:, None] - rows[None], axis=2) for rows in (plane, found)]
    assert np.allclose(*distances)
    assert shares[0] > shares[1] and sum(shares) == pytest.approx(1)


def test_a_projection_does_not_depend_on_the_order_of_the_sample():
    rows = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    found, _ = projected(rows, rows)
    assert np.array_equal(found, projected(rows, rows)[0])
    assert np.allclose(found, projected(rows[::-1], rows)[0])


@pytest.mark.parametrize("rows", [np.ones((4, 3)), np.ones((1, 3)), np.ones((4, 1))])
def test_where_nothing_varies_all_is_at_the_middle(rows):
    found, shares = projected(rows, rows)
    assert not found.any()
    assert shares == (0, 0)


def test_every_pick_is_on_the_map_with_its_question_and_drawn_last():
    svg = drawn_map(a_map())
    told = titles(svg)
    assert sorted(told["path"]) == [
        f"Pick {k}, difficulty {m.difficulty:.2f}, <clinic>: {m.question}"
        for k, m in enumerate(a_map().picks, start=1)
    ]
    assert len(told["circle"]) == 34
    assert svg.rindex("<circle") < svg.index("<path")


def test_a_map_shows_no_more_than_its_share_and_says_so():
    story = a_map(n=2600, n_chosen=600)
    assert (len(story.points), len(story.picks), len(story.reasons)) == (1500, 500, 15)
    assert [p.rank for p in story.picks] == list(range(500))
    assert "500 of 600 picks and 1,500 of 2,000 others" in caption(story)


def test_a_map_is_the_same_every_time():
    assert drawn_map(a_map(n=1700)) == drawn_map(a_map(n=1700))


def test_a_map_of_a_pool_that_is_all_picked_is_drawn():
    assert len(titles(drawn_map(a_map(n=3, n_chosen=3)))["path"]) == 3


def test_a_question_on_the_map_is_text_and_nothing_else():
    page, _ = render(a_story(maps=(a_map(question=HOSTILE),)))
    assert not outward(page)
    assert not re.search("[\x00-\x08\u202a-\u202e]", page)
    assert "&lt;script&gt;alert(" in page
    ET.fromstring(drawn_map(a_map(question=HOSTILE)))


def test_a_long_question_is_cut():
    assert plain("a\n b") == "a b"
    assert plain("a" * 160) == "a" * 160
    assert plain("a" * 161) == "a" * 159 + "…"
    assert plain(" " * 9999 + "a") == "…"


def test_the_harder_the_darker():
    levels = [sum(bytes.fromhex(colour(d)[1:])) for d in np.linspace(0, 1, 20)]
    assert all(a > b for a, b in pairwise(levels))
    assert (colour(-1), colour(2)) == (colour(0), colour(1))


def test_a_run_s_report_maps_its_choice(tiny):
    page = bridgekd.run(tiny).report.read_text()
    assert page.count("difficulty") > 60
    assert "12 of 12 picks and 48 of 48 others" in page
    assert not outward(page)


def test_a_choice_without_a_scored_pool_has_no_map(tiny):
    page = bridgekd.run(tiny, methods=["direct"]).report.read_text()
    assert "What was chosen, and why" not in page


def test_a_random_choice_in_a_scored_pool_has_a_map_and_no_reasons(tiny):
    page = bridgekd.run(tiny, methods=["random"]).report.read_text()
    assert "12 of 12 picks" in page
    assert "picks, and why" not in page
