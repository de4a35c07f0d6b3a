"""How hard an example is: from what a model thinks of its options, from how far several answers
agree, and as a place among its pool."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import entropy

COMMON = 5  # questions by which an answer's mean loss is drawn towards that of the pool


def above_answer(losses: NDArray[np.float64], answers: Sequence[str]) -> NDArray[np.float64]:
    """Each of `losses` [n] less what its gold answer costs in this pool whatever the question: the
    mean loss of all questions with that answer, drawn towards the pool's mean as if `COMMON`
    questions more had that; ours.

    A model that rarely says a word finds every question hard whose answer it is. Calibrating by
    the answer's own likelihood is from Holtzman et al. 2021 (domain conditional PMI); that the
    pool's mean stands for it, so that it takes no pass of its own, is not.
    """
    if not np.isfinite(losses).all():
        return losses  # for `rank_normalize` to name
    places = {answer: k for k, answer in enumerate(dict.fromkeys(answers))}
    place = np.array([places[answer] for answer in answers])
    sums, counts = np.bincount(place, losses), np.bincount(place)
    own = (sums + COMMON * losses.mean()) / (counts + COMMON)
    return np.asarray(losses - own[place])


def option_entropy(log_likelihoods: NDArray[np.float64]) -> float:
    """-sum_c p(c) log p(c) / log C in [0, 1] over C options; p is proportional to exp of
    `log_likelihoods` [C], mean log-likelihoods a token.

    A reading of BRIDGE's "entropic difficulty" (arXiv 2512.20403). One option alone is certain: 0.
    """
    n = len(log_likelihoods)
    return float(entropy(softmax(log_likelihoods)) / np.log(n)) if n > 1 else 0.0


def option_margin(log_likelihoods: NDArray[np.float64]) -> float:
    """1 - (p1 - p2) in [0, 1] of the two likeliest options, p as in `option_entropy`; ours.

    The margin of uncertainty sampling (Scheffer et al. 2001) turned over, so that higher is harder.
    """
    if len(log_likelihoods) < 2:
        return 0.0
    second, first = np.sort(softmax(log_likelihoods))[-2:]
    return float(1 - (first - second))


def n_distinct(answers: Sequence[str]) -> int:
    """How many different answers there are among `answers`, in canonical form; 0 for none.

    Student self-consistency, signal 1 of Teaching-Assistant-in-the-Loop (arXiv 2406.05322): the
    number of distinct final answers is stated. All unreadable answers ("") are one answer: a
    reading, since an unreadable text says nothing about how many answers a model has in mind.
    """
    return len(set(answers))


def vote_entropy(answers: Sequence[str]) -> float:
    """-sum_a (v_a / k) log(v_a / k) / log k in [0, 1]; v_a of the k answers are a. 0 for k < 2.

    The disagreement of a committee (Engelson & Dagan 1996): 0 if all agree, 1 if no two do.
    Unreadable answers ("") are one answer, as in `n_distinct`; ours.
    """
    k = len(answers)
    if k < 2:
        return 0.0
    return float(min(1.0, entropy(list(Counter(answers).values())) / np.log(k)))
