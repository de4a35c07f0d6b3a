"""One choice in a process of its own: reads a job from its first argument, writes the picks in
order, the seconds they took and the process's largest memory. Runs in any virtual environment.
"""

import importlib
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

MODULES = {
    "plain": "numpy",
    "kmeans": "sklearn.cluster",
    "apricot": "apricot",
    "submodlib": "submodlib",
    "bridgekd": "bridgekd.selection.strategies",
}


def select_plain(embeddings, places, n_chosen, alpha, seed):
    """The greedy rule with one product per pick, as in bridgekd 0.1.0."""
    distance = np.ones(len(embeddings), dtype=np.float32)
    left = np.ones(len(embeddings), dtype=bool)
    picks = []
    for _ in range(n_chosen):
        score = alpha * places + (1 - alpha) * distance
        best = int(np.argmax(np.where(left, score, -np.inf)))
        left[best] = False
        to_best = np.clip((1 - embeddings @ embeddings[best]) / 2, 0, 1)
        distance = np.minimum(distance, to_best) if picks else to_best
        picks.append(best)
    return picks


def select_kmeans(embeddings, places, n_chosen, alpha, seed):
    """scikit-learn: k-means, then the row nearest to each centre."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import pairwise_distances_argmin

    model = KMeans(n_chosen, n_init=1, max_iter=50, random_state=seed).fit(embeddings)
    return pairwise_distances_argmin(model.cluster_centers_, embeddings)


def select_apricot(embeddings, places, n_chosen, alpha, seed):
    from apricot import FacilityLocationSelection

    similarity = (1 + embeddings @ embeddings.T) / 2
    model = FacilityLocationSelection(n_chosen, metric="precomputed", optimizer="lazy")
    return model.fit(similarity).ranking


def select_submodlib(embeddings, places, n_chosen, alpha, seed):
    from submodlib import FacilityLocationFunction

    similarity = (1 + embeddings @ embeddings.T) / 2
    model = FacilityLocationFunction(
        n=len(embeddings), mode="dense", sijs=similarity, separate_rep=False
    )
    found = model.maximize(budget=n_chosen, optimizer="LazyGreedy", show_progress=False)
    return [row for row, _ in found]


def bridgekd(strategy, embeddings, places, n_chosen, alpha, seed):
    from bridgekd.selection.strategies import STRATEGIES
    from bridgekd.selection.strategy import rank_pool

    variant = STRATEGIES.get(strategy)
    has_alpha = "alpha" in variant.options.model_fields
    options = variant.options(**({"alpha": alpha} if has_alpha else {}))
    ids = [f"{row:08d}" for row in range(len(embeddings))]
    ranking = rank_pool(variant, options, ids, places, embeddings, n_selected=n_chosen, seed=seed)
    return ranking.rows[:n_chosen]


def measure_peak_gib() -> float:
    """This process's largest resident memory. Linux only: ru_maxrss would hold the parent's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 2**20
    return float("nan")


def main() -> None:
    job = json.loads(sys.argv[1])
    if job["memory_gib"]:
        limit = int(job["memory_gib"] * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    folder = Path(job["data"])
    given = np.load(folder / "embeddings.npy"), np.load(folder / "places.npy")
    wanted = job["n_chosen"], job["alpha"], job["seed"]
    name = job["chooser"]
    importlib.import_module(MODULES[name.split()[0]])  # outside the clock
    began, cpu_began = time.perf_counter(), time.process_time()
    if name.startswith("bridgekd "):
        picks = bridgekd(name.split()[1], *given, *wanted)
    else:
        picks = globals()[f"select_{name}"](*given, *wanted)
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
    memory = measure_peak_gib()
    np.save(Path(job["out"]) / "picks.npy", np.asarray(picks, dtype=np.int64))
    (Path(job["out"]) / "result.json").write_text(
        json.dumps({"s": seconds, "cpu_s": cpu_s, "gib": memory})
    )


if __name__ == "__main__":
    main()
