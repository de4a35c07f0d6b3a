"""The papers' claims, measured in the sandbox. What was stopped goes on; what is there is found.

    python benchmarks/reproduce.py                     every claim, five seeds: about five hours
    python benchmarks/reproduce.py --quick             one seed, a pool of 1,000, twenty minutes
    python benchmarks/reproduce.py strategies loop     single experiments (names in claims/)
    python benchmarks/reproduce.py --write             and puts the tables into docs and README

World, base models and hyper-parameters are the demo's, fixed before; early stopping looks at the
validation split alone. Intervals: over seeds and questions, as in `bridgekd compare`.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from claims import plots, tables
from claims.experiments import (
    CANDIDATES,
    CHOICES,
    CHOOSING,
    CLAIMS,
    EXPERIMENTS,
    LATER_SEEDS,
    STUDENTS,
)
from claims.jobs import SHIFTS, Answers, Job, repeat_for_seeds, run_jobs_in_parallel
from claims.results import Line, collect_lines, load_artifact
from claims.saved_seeds import RESULTS, run_seeds
from claims.summary import summarize_claims
from generated_section import replace_section, split_at_section

from bridgekd.io.artifact_store import Artifact, find_ancestors
from bridgekd.sandbox.export import export_world
from bridgekd.sandbox.world import generate_examples
from bridgekd.stages.train import train_student

ROOT = Path(__file__).parents[1]
DOCUMENT, README = ROOT / "docs" / "experiments.md", ROOT / "README.md"
MARKS = {  # in DOCUMENT: the experiments that stand there
    "claims": CLAIMS,
    "choosing": CHOOSING,
    "later_seeds": LATER_SEEDS,
    "candidates": CANDIDATES,
    **{name: (name,) for name in (*CHOICES, *STUDENTS)},
}
# Of sections about other seeds than from 0 on.
FIRST_SEEDS = {"later_seeds": 5, "candidates": 10, **dict.fromkeys(STUDENTS, 30),
               **dict.fromkeys(CHOICES, 50)}  # fmt: skip
N_SHIFTED, SEED_SHIFTED = 4200, 3000  # as many as the world's train file has
UNEVEN = {"clinic": 0.8, "statute": 0.15, "accounts": 0.05}  # of half as many questions
QUICK = {"n_pool": 1000, "n_validation": 100, "n_test": 300, "n_instructions": 1000}
README_ARMS = {
    "teacher": "teacher",
    "student_instructed": "student, instruction-tuned",
    "direct": "direct distillation",
    "direct_full": "direct distillation, full pool",
    "random": "BRIDGE, random questions",
    "bridge": "**BRIDGE**",
}


def make_world(folder: Path, quick: bool) -> None:
    """The sandbox's world in `folder`, and questions of single domains for the shifted warm-up."""
    export_world(folder, **(QUICK if quick else {}))
    write_uneven(folder)
    n = QUICK["n_pool"] + QUICK["n_validation"] if quick else N_SHIFTED
    wanted = {d: folder / f"shifted-{d}.jsonl" for d in SHIFTS}
    if all(path.is_file() for path in wanted.values()):
        return
    questions = generate_examples(6 * n, SEED_SHIFTED)
    for domain, path in wanted.items():
        rows = [e for e in questions if e.domain == domain][:n]
        path.write_text(
            "".join(
                json.dumps(
                    {"id": e.id, "question": e.question, "answer": e.answer, "domain": domain}
                )
                + "\n"
                for e in rows
            )
        )


def write_uneven(folder: Path) -> None:
    """Write the training questions again, so many of each domain as UNEVEN says."""
    path, rows = folder / "uneven.jsonl", (folder / "train.jsonl").read_text().splitlines(True)
    n_left = {domain: round(share * len(rows) / 2) for domain, share in UNEVEN.items()}
    if path.is_file():
        return
    kept = []
    for row in rows:
        domain = json.loads(row)["domain"]
        if n_left[domain]:
            n_left[domain] -= 1
            kept.append(row)
    path.write_text("".join(kept))


def format_results(lines: Mapping[str, Mapping[str, Line]], seeds: Sequence[int]) -> str:
    """All tables as one Markdown text."""
    parts = []
    if found := summarize_claims(lines):
        parts.append(tables.format_summary(found, len(seeds)))
        parts.append(
            "Each claim by itself. The tables below correct p for all their comparisons, "
            "and not their intervals."
        )
    for name, rows in lines.items():
        experiment = EXPERIMENTS[name]
        parts.append(f"### {experiment.title}\n\n`{name}`. The paper: {experiment.asks}.")
        parts.append(tables.format_experiment(experiment, rows))
    parts.append(describe_means(seeds))
    return "\n\n".join(parts)


def describe_means(seeds: Sequence[int]) -> str:
    """What the figures of a table are."""
    which = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
    return f"Means over {which}; 95 % intervals over seeds and questions."


def draw_plots(lines: Mapping[str, Mapping[str, Line]], to: Path) -> None:
    """The pictures of the experiments that have one."""
    if "methods" in lines:
        plots.plot_arms(lines["methods"], to / "arms.svg")
    if "scaling" in lines:
        plots.plot_scaling(lines["scaling"], to / "scaling.svg")


def write_section(lines: Mapping[str, Mapping[str, Line]], mark: str, text: str) -> None:
    """Into the documents."""
    replace_section(DOCUMENT, mark, text)
    if mark == "claims":
        draw_plots(lines, ROOT / "docs" / "figures")
        replace_section(README, mark, tables.format_readme(lines["methods"], README_ARMS))


def describe_effort(done: Mapping[Job, Answers]) -> str:
    """What making all of it anew takes, by the seconds that each part took when it was made."""
    made: dict[str, Artifact] = {}
    for path in {path for answers in done.values() for path in answers.values()}:
        made |= find_ancestors(load_artifact(path))
    hours = sum(a.manifest.seconds for a in made.values()) / 3600
    n = sum(a.stage == train_student.name for a in made.values())
    return f"{n} trainings of a student; {hours:.1f} hours of one core for everything"


def find_mark(names: Sequence[str], first_seed: int) -> str:
    """Where the tables of these experiments go. SystemExit, before hours are spent, where they are
    not all that stands there or a document has no place for them.
    """
    mark = next((mark for mark, whole in MARKS.items() if set(names) == set(whole)), None)
    if mark is None:
        raise SystemExit("--write replaces whole sections: name all experiments of one, or none")
    if first_seed != FIRST_SEEDS.get(mark, 0):
        raise SystemExit(f"that section's seeds: --first-seed {FIRST_SEEDS.get(mark, 0)}")
    for document in (DOCUMENT, README)[: 1 + (mark == "claims")]:
        split_at_section(document, mark)
    return mark


def analyze_once(name: str, seeds: Sequence[int], args: argparse.Namespace, folder: Path) -> str:
    """The tables of an experiment with a margin, from a file for each seed. Nothing of a seed's
    results is printed before all seeds are done.
    """

    def run_jobs(jobs: Sequence[Job]) -> Mapping[Job, Answers]:
        make_world(folder, args.quick)
        return run_jobs_in_parallel(
            folder, jobs, args.workers, lambda text: print(text, flush=True)
        )

    experiment = EXPERIMENTS[name]
    results = args.results or (folder / "results" if args.quick else RESULTS)
    saved = run_seeds(name, experiment, seeds, results, run_jobs)
    return "\n\n".join(
        (
            f"### {experiment.title}\n\n`{name}`. {experiment.asks}.",
            tables.format_noninferiority(experiment, saved),
            describe_means(seeds),
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(EXPERIMENTS)}; none: the claims")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--results", type=Path, help="of the experiments with a file for each seed")
    parser.add_argument("--write", action="store_true", help="put the tables into docs and README")
    args = parser.parse_args()
    names = args.names or CLAIMS
    if unknown := set(names) - set(EXPERIMENTS):
        raise SystemExit(f"unknown: {', '.join(unknown)}; known: {', '.join(EXPERIMENTS)}")
    if args.write and args.quick:
        raise SystemExit("--write is for all seeds; --quick prints its tables")
    once = [name for name in names if EXPERIMENTS[name].margin is not None]
    if once and len(names) > 1:
        raise SystemExit(f"{once[0]} is analyzed by itself: name no other experiment beside it")
    mark = find_mark(names, args.first_seed) if args.write else ""
    folder = (args.folder or Path("reproduction-quick" if args.quick else "reproduction")).resolve()
    n_seeds = args.seeds or (1 if args.quick else 5)
    seeds = range(args.first_seed, args.first_seed + n_seeds)
    began = time.monotonic()
    if once:
        text = analyze_once(once[0], seeds, args, folder)
        if mark:
            replace_section(DOCUMENT, mark, text)
        print(f"\n{text}\n\n{(time.monotonic() - began) / 60:.0f} minutes")
        return
    make_world(folder, args.quick)
    jobs = repeat_for_seeds([job for name in names for job in EXPERIMENTS[name].jobs], seeds)
    done = run_jobs_in_parallel(folder, jobs, args.workers, lambda text: print(text, flush=True))
    lines = {name: collect_lines(folder, EXPERIMENTS[name], done, seeds) for name in names}
    text = format_results(lines, seeds)
    (folder / "tables.md").write_text(text + "\n")
    draw_plots(lines, folder)
    if mark:
        write_section(lines, mark, text)
    minutes = (time.monotonic() - began) / 60
    print(
        f"\n{text}\n\n{len(jobs)} jobs in {minutes:.0f} minutes; {describe_effort(done)}; {folder}"
    )


if __name__ == "__main__":
    main()
