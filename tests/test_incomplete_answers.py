"""Status, metrics and report count queries without an answer, and answers without token counts."""

import shutil

import bridgekd
from bridgekd.cli.main import main
from bridgekd.io.row_files import read_rows
from bridgekd.records import Completion
from conftest import TINY_RECIPE
from faulty_teacher import Faults, run_teacher_server

FAULTS = Faults(refuse=0.25, no_usage=0.4)


def test_status_metrics_and_report_have_both_counts(world_files, tmp_path, capsys):
    folder = tmp_path / "tiny"
    shutil.copytree(world_files, folder)
    with run_teacher_server(faults=FAULTS, wrong_rate=0.0) as teacher:
        (folder / "tiny.yaml").write_text(TINY_RECIPE % teacher.base_url)
        # The second run reuses all answers of the first one.
        runs = [
            bridgekd.run(folder / "tiny.yaml", methods=["direct"], overrides=[f"store={store}"])
            for store in ("runs", "again")
        ]
    (file,) = (folder / "runs").glob("query_teacher-*/completions.parquet")
    rows = read_rows(file, Completion)
    n_refused = sum(row.state == "refused" for row in rows)
    arm, again = (run.metrics.arms["direct"] for run in runs)
    assert (arm.n_queries, arm.n_without_answer) == (12, n_refused)
    assert 0 < n_refused < 12 and 0 < arm.n_at_reserve < 12
    assert again.by_seed == tuple(
        seed.model_copy(update={"seconds": again.by_seed[0].seconds}) for seed in arm.by_seed
    )
    assert main(["status", "tiny", "--store", str(folder / "runs")]) == 0
    status = " ".join(capsys.readouterr().out.split())
    assert f"query_teacher: {n_refused} of 12 queries ended without an answer" in status
    assert f"query_teacher: {arm.n_at_reserve} of 12 came without usable token counts" in status
    teacher_arm = runs[0].metrics.arms["teacher"]
    n_all = n_refused + teacher_arm.n_without_answer
    report = runs[0].report.with_suffix(".md").read_text()
    assert f"{n_all} of 17 queries ended without an answer" in report
    assert f"{arm.n_at_reserve + teacher_arm.n_at_reserve} of 17 came without usable" in report
