"""What is found again, and what is not; by the slow way, too."""

import random
import tracemalloc

import pytest

from bridgekd.core.overlap import FEWEST, RUN, Overlap, overlaps, words

LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"


def slowly(questions, texts):
    """The shares by looking at every run of every text."""
    read = [words(text) for text in texts]
    shares = []
    for asked in map(words, questions):
        n = min(RUN, len(asked))
        if len(asked) < FEWEST:
            shares.append(float(bool(asked) and asked in read))
            continue
        there = {tuple(t[i : i + n]) for t in read for i in range(len(t) - n + 1)}
        covered = {
            i + k
            for i in range(len(asked) - n + 1)
            if tuple(asked[i : i + n]) in there
            for k in range(n)
        }
        shares.append(len(covered) / len(asked))
    return shares


def test_case_and_punctuation_do_not_count():
    assert overlaps([LONG], ["zz", f"so: {LONG.upper().replace(' ', ', ')}!"]) == [Overlap(1.0, 1)]


def test_thirteen_words_in_a_row_are_found_and_twelve_are_not():
    thirteen, twelve = (" ".join(LONG.split()[:n]) for n in (13, 12))
    assert overlaps([LONG], [f"x {thirteen} y"]) == [Overlap(13 / 14, 0)]
    assert overlaps([LONG], [f"x {twelve} y {twelve}"]) == [Overlap()]


def test_no_run_goes_from_one_text_into_the_next():
    first, rest = LONG[: LONG.index("seven")], LONG[LONG.index("seven") :]
    assert overlaps([LONG], [first, rest]) == [Overlap()]


def test_a_short_question_is_found_as_a_whole_and_a_very_short_one_only_as_a_whole_text():
    eight, seven = (" ".join(LONG.split()[:n]) for n in (8, 7))
    assert overlaps([eight, seven], [f"so {LONG}"]) == [Overlap(1.0, 0), Overlap()]
    assert overlaps([seven], ["x", f"{seven}?"]) == [Overlap(1.0, 1)]


def test_the_text_that_holds_most_is_named():
    a, b = LONG, " ".join(f"b{i}" for i in range(20))
    (found,) = overlaps([f"{a} and {b}"], [a, b, f"{a} and {b}"])
    assert found == Overlap(1.0, 2)


def test_nothing_is_found_in_nothing():
    assert overlaps([LONG, "", "short"], []) == [Overlap()] * 3
    assert overlaps([], [LONG]) == []
    assert overlaps(["", "?"], ["", "!"]) == [Overlap()] * 2


@pytest.mark.parametrize("seed", range(6))
def test_the_fast_way_finds_what_the_slow_one_does(seed):
    rng = random.Random(seed)

    def some(n):
        return " ".join(rng.choices("abc", k=n))

    base = [some(40) for _ in range(30)]
    questions = [some(rng.randint(0, 40)) for _ in range(30)]
    for i in range(0, 30, 3):
        at = rng.randrange(30)
        questions[i] = f"{some(4)} {base[i][at : at + 60]} {some(5)}"
    found = overlaps(questions, base)
    assert [o.share for o in found] == pytest.approx(slowly(questions, base))
    assert all((o.text is None) == (o.share == 0) for o in found)


def test_memory_goes_with_the_questions_and_not_with_the_texts():
    rng = random.Random(0)
    vocabulary = [f"w{i}" for i in range(500)]
    questions = [" ".join(rng.choices(vocabulary, k=40)) for _ in range(100)]

    def peak(n):
        tracemalloc.start()
        overlaps(questions, (" ".join(rng.choices(vocabulary, k=40)) for _ in range(n)))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(12_000) < 1.5 * peak(4000)
