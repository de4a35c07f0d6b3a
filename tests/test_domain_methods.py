"""BalDistill and DDK in a small run: what each stage or wave gets."""

import json

import numpy as np

import bridgekd
from bridgekd.io.row_files import read_rows
from bridgekd.records import Pick, Rationale, Score


def find_folders(recipe, stage):
    """The folders of a stage, in the order of the run."""
    stages = json.loads((recipe.parent / "runs" / "tiny.json").read_text())["stages"]
    return [recipe.parent / "runs" / row["folder"] for row in stages if row["stage"] == stage]


def read_manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def test_baldistill_buys_in_stages_and_trains_the_instructed_student_on_all_so_far(tiny):
    done = bridgekd.run(tiny, methods=[{"name": "baldistill", "n_stages": 2}])
    first, second = find_folders(tiny, "select_questions")
    settings = read_manifest(second)["settings"]
    assert (settings["quotas"], settings["mixture"]["name"]) == ("domain", "toward_even")
    assert settings["budget_slice"] == [0.5, 1.0]
    bought = {p.id for p in read_rows(first / "ranking.parquet", Pick) if p.is_selected}
    assert bought.isdisjoint(p.id for p in read_rows(second / "ranking.parquet", Pick))
    (scores,) = find_folders(tiny, "score_ifd")
    ifd = [row.difficulty for row in read_rows(scores / "scores.parquet", Score)]
    assert len(ifd) == 60 and np.isfinite(ifd).all() and min(ifd) > 0
    students = [read_manifest(folder)["inputs"] for folder in find_folders(tiny, "train_student")]
    assert [len(inputs["rationales"]) for inputs in students] == [1, 2]
    assert students[0]["model"] == students[1]["model"]
    assert done.metrics.arms["baldistill"].n_queries == 12


def test_ddk_draws_rows_for_each_wave_by_the_losses_of_the_student_before(tiny):
    bridgekd.run(tiny, methods=[{"name": "ddk", "n_waves": 2, "n_per_domain": 5}])
    mixes = [read_manifest(folder) for folder in find_folders(tiny, "mix_rationales")]
    students = [read_manifest(folder) for folder in find_folders(tiny, "train_student")]
    assert [m["settings"]["part"] for m in students] == [[0, 0.5], [0.5, 1]]
    assert [m["settings"]["mixture"]["options"] for m in mixes] == [{"alpha": 0.5}] * 2
    assert (
        students[1]["inputs"]["model"][0]["folder"] == find_folders(tiny, "train_student")[0].name
    )
    losses = [ref["folder"] for m in mixes for ref in m["inputs"]["losses"]]
    assert losses[1] == losses[3] and losses[0] != losses[2]  # the assistant's, the student's
    scores = read_rows(tiny.parent / "runs" / losses[0] / "scores.parquet", Score)
    assert 5 <= len(scores) <= 15 and min(row.difficulty for row in scores) > 0
    rows = [
        read_rows(folder / "rationales.parquet", Rationale)
        for folder in find_folders(tiny, "mix_rationales")
    ]
    (annotated,) = find_folders(tiny, "annotate")
    n_kept = sum(row.kept for row in read_rows(annotated / "rationales.parquet", Rationale))
    assert [sum(row.kept for row in each) for each in rows] == [n_kept] * 2
