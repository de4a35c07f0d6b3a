"""How a selection compares with random ones, before money is spent."""

from types import SimpleNamespace

import numpy as np
import pytest

from bridgekd.cli.render_plan import describe_selection_check
from bridgekd.report.detail_tables import build_selection_table
from bridgekd.selection.representativeness import SelectionCheck, compare_with_random
from selection_pools import make_groups, make_pool


def check(picks, domains, embeddings, answers=None):
    is_selected = np.isin(np.arange(len(domains)), picks)
    answers = np.arange(len(domains)) % 4 if answers is None else answers
    return compare_with_random(
        is_selected, {"domains": domains, "gold answers": answers}, embeddings, seed=0
    )


def list_outside(found):
    return [figure.name for figure in found.outside]


def test_picks_of_one_domain_are_outside_and_their_total_variation_is_exact():
    _, _, embeddings = make_pool(400, 1)
    domains = np.repeat([0, 1], [300, 100])
    found = check(np.arange(40), domains, None)
    figure = found.figures[0]
    assert (figure.name, figure.value, figure.low) == ("domains", 0.25, None)
    assert list_outside(found) == ["domains"] and figure.high < 0.2
    assert list_outside(check(np.arange(0, 400, 9), domains, embeddings)) == []


def test_picks_of_one_answer_are_outside():
    domains = np.zeros(400, dtype=int)
    found = check(np.arange(0, 160, 4), domains, None)
    assert [f.name for f in found.figures] == ["gold answers"] == list_outside(found)


def test_far_questions_are_outside_by_place_and_typicality():
    _, _, far = make_pool(40, 2)
    _, _, near = make_groups([300], spread=0.3)
    embeddings, domains = np.vstack([near, far]), np.zeros(340, dtype=int)
    found = check(np.arange(300, 320), domains, embeddings)
    assert list_outside(found) == ["kernel distance", "typicality"]
    typicality = found.figures[-1]
    assert typicality.value < typicality.low < typicality.high
    assert list_outside(check(np.arange(0, 340, 17), domains, embeddings)) == []


def test_random_selections_are_seldom_outside():
    _, _, embeddings = make_pool(300, 3)
    domains, rng = np.arange(300) % 3, np.random.default_rng(5)
    n_outside = sum(
        bool(check(rng.permutation(300)[:30], domains, embeddings).outside) for _ in range(60)
    )
    assert n_outside <= 9  # more than 9 of 60 at 5 % has a probability of 0.001


def test_large_pools_are_compared_by_samples_of_the_same_size():
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(25_000, 8)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    domains = (embeddings[:, 0] > 0.3).astype(int)
    assert not check(np.arange(0, 25_000, 7), domains, embeddings).outside
    shifted = np.argsort(embeddings[:, 0])[:4000]
    assert list_outside(check(shifted, domains, embeddings))[0] == "domains"


@pytest.mark.parametrize("picks", [[], [0, 1, 2], [1]])
def test_few_questions_and_whole_pools_have_no_warning(picks):
    _, _, embeddings = make_pool(3, 1)
    assert not check(picks, np.arange(3), embeddings).outside


def test_the_warning_names_what_is_outside_and_the_limits():
    found = check(np.arange(40), np.repeat([0, 1], [300, 100]), None)
    text = describe_selection_check(SimpleNamespace(selection=found))
    assert "domains 0.25 (random: at most 0." in text and "select.quotas" in text
    assert "gold answers" not in text
    for nothing in (None, SelectionCheck(3, 9, ())):
        assert describe_selection_check(SimpleNamespace(selection=nothing)) == ""


def test_the_report_shows_every_figure():
    found = check(np.arange(40), np.repeat([0, 1], [300, 100]), None)
    table = build_selection_table(SimpleNamespace(selections=(("Selection: X", found),)))
    assert [row[2] for row in table.rows] == ["domains", "gold answers"]
    assert [row[-1] for row in table.rows] == ["outside", "inside"]
    assert build_selection_table(SimpleNamespace(selections=())) is None
