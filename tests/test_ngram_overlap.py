"""The words of a question that count as seen."""

import random

import pytest

from bridgekd.stats.ngram_overlap import MIN_NGRAM_SIZE, NGRAM_SIZE, compute_overlaps, split_words

LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"


def first_words(n):
    return " ".join(LONG.split()[:n])


def compute_slowly(questions, texts):
    """The fractions by comparing every n-gram with every position of every text."""
    read = [split_words(text) for text in texts]
    fractions = []
    for words in map(split_words, questions):
        n = min(NGRAM_SIZE, len(words))
        if len(words) < MIN_NGRAM_SIZE:
            fractions.append(float(bool(words) and words in read))
            continue
        found = [
            start
            for start in range(len(words) - n + 1)
            if any(words[start : start + n] == t[i : i + n] for t in read for i in range(len(t)))
        ]
        covered = {start + k for start in found for k in range(n)}
        fractions.append(len(covered) / len(words))
    return fractions


def test_case_and_punctuation_do_not_count():
    assert compute_overlaps([LONG], ["zz", f"so: {LONG.upper().replace(' ', ', ')}!"]) == [1.0]


def test_thirteen_words_in_a_row_are_found_and_twelve_are_not():
    thirteen, twelve = first_words(13), first_words(12)
    assert compute_overlaps([LONG], [f"x {thirteen} y"]) == [13 / 14]
    assert compute_overlaps([LONG], [f"x {twelve} y {twelve}"]) == [0.0]


def test_no_ngram_spans_two_texts():
    first, rest = LONG[: LONG.index("seven")], LONG[LONG.index("seven") :]
    assert compute_overlaps([LONG], [first, rest]) == [0.0]


def test_short_question_must_match_completely_and_very_short_one_a_complete_text():
    assert compute_overlaps([first_words(8), first_words(7)], [f"so {LONG}"]) == [1.0, 0.0]
    assert compute_overlaps([first_words(7)], ["x", f"{first_words(7)}?"]) == [1.0]


def test_very_short_question_is_not_found_in_a_longer_text_of_another_size():
    assert compute_overlaps([first_words(7), first_words(9)], [first_words(9)]) == [0.0, 1.0]


def test_nothing_is_found_in_nothing():
    assert compute_overlaps([LONG, "", "short"], []) == [0.0] * 3
    assert compute_overlaps([], [LONG]) == []
    assert compute_overlaps(["", "?"], ["", "!"]) == [0.0] * 2


@pytest.mark.parametrize("seed", range(6))
def test_fractions_equal_those_of_a_slow_comparison(seed):
    rng = random.Random(seed)

    def sample_text(n):
        return " ".join(rng.choices("abc", k=n))

    texts = [sample_text(40) for _ in range(30)]
    questions = [sample_text(rng.randint(0, 40)) for _ in range(30)]
    for i in range(0, 30, 3):
        at = rng.randrange(30)
        questions[i] = f"{sample_text(4)} {texts[i][at : at + 60]} {sample_text(5)}"
    assert compute_overlaps(questions, texts) == pytest.approx(compute_slowly(questions, texts))
