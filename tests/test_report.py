"""The page: self-contained, safe against what models write, honest in its headline."""

import re

import pytest

from bridgekd.report.page import render
from bridgekd.report.story import ArmRow, Purchase, SideBySide, StageRow, Story
from bridgekd.stages.telling import headline


def an_arm(name, accuracy, low, high):
    domains = {"clinic": (accuracy, low, high), "statute": (accuracy, low, high)}
    return ArmRow(name, name.title(), accuracy, low, high, 600, 200, 0.25, 61.0, domains)


def a_story(**changes):
    fields = {
        "name": "tiny",
        "headline": "It went well.",
        "arms": (an_arm("teacher", 0.9, 0.87, 0.92), an_arm("bridge", 0.6, 0.56, 0.64)),
        "pairs": (("bridge - teacher", -0.3, 1e-9, 600),),
        "purchases": (
            Purchase("Chosen by: bridge", 200, 0.25, "queries", 180, {"wrong answer": 20}, {}),
        ),
        "examples": (SideBySide("Q?", "a", "clinic", (("Bridge", "<script>x</script>", False),)),),
        "stages": (StageRow("select", "select-1", 0.1, "n_chosen 200"),),
        "contamination": "0 of 600 test questions stand word for word in the train file.",
        "recipe_yaml": "name: tiny",
        "libraries": "torch 2",
    } | changes
    return Story(**fields)


def test_a_page_needs_nothing_from_elsewhere():
    page, _ = render(a_story())
    without_names = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    assert not re.search(r'(src|href)\s*=\s*"(?!#)|url\((?!#)|@import', without_names)


def test_what_a_model_wrote_is_shown_and_never_run():
    page, _ = render(a_story())
    assert "<script>" not in page
    assert "&lt;script&gt;x" in page


def test_page_and_markdown_hold_every_arm_with_its_interval():
    page, markdown = render(a_story())
    assert "56.0 % to 64.0 %" in page
    assert "| Bridge | 60.0% | 56.0% to 64.0% | 600 | 200 | $0.2500 | 61 |" in markdown


def test_an_arm_that_was_not_asked_about_a_domain_says_so():
    story = a_story()
    partial = ArmRow("direct", "Direct", 0.5, 0.4, 0.6, 9, 1, 0.1, 1.0, {"clinic": (0.5, 0.4, 0.6)})
    page, _ = render(a_story(arms=(*story.arms, partial)))
    assert page.count("not asked") == 1


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
    assert verdict in headline(arms, {"direct - bridge": p})
