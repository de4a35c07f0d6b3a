"""Gathers a report's story from an evaluation and everything it was made from."""

import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from ruamel.yaml import YAML

from bridgekd.edges.rows import read_rows
from bridgekd.edges.store import Artifact, ancestors
from bridgekd.records import Completion, Example, Prediction, Rationale
from bridgekd.report.story import (
    Against,
    ArmRow,
    Purchase,
    Reliability,
    SideBySide,
    StageRow,
    Story,
)
from bridgekd.stages.mapping import inputs_of, pool_maps

TITLES = {
    "teacher": "Teacher",
    "assistant_base": "Assistant, untouched",
    "assistant_warm": "Assistant, warmed up",
    "assistant": "Assistant, trained",
    "random_assistant": "Assistant, random picks",
    "hardest_assistant": "Assistant, hardest picks",
    "diverse_assistant": "Assistant, diverse picks",
    "student_base": "Student, untouched",
    "student_instructed": "Student, instructed",
    "answers_only": "Student, answers alone",
    "direct": "Student, direct",
    "direct_full": "Student, direct, whole pool",
    "ta_in_the_loop": "Student, TA-in-the-Loop",
    "mentor_kd": "Student, Mentor-KD",
    "no_instruct": "Student, not instructed",
    "random": "Student, random picks",
    "hardest": "Student, hardest picks",
    "diverse": "Student, diverse picks",
    "bridge": "Student, BRIDGE",
}
ORDER = tuple(TITLES)
WEIGHED = {
    "check": "The teacher's rationales",
    "annotate": "The assistant's own rationales",
    "weigh_student": "The student's answers",
}
_N_EXAMPLES = 10
_LEADING = ("bridge", "random", "ta_in_the_loop", "direct")  # of which the headline speaks
_SHOWN = (
    "teacher",
    "assistant",
    "random_assistant",
    "direct",
    "ta_in_the_loop",
    "random",
    "bridge",
)


def tell(evaluation: Artifact, recipe: Mapping[str, object]) -> Story:
    """The story of one evaluation. Of several seeds or budgets the details are of the first."""
    behind = ancestors(evaluation)
    metrics = json.loads((evaluation.path / "metrics.json").read_text())
    arms = tuple(_arm(name, metrics["arms"][name]) for name in in_order(metrics["arms"]))
    first = _first_models(evaluation, behind)
    shown = {name: a for made in first.values() for name, a in ancestors(made).items()}
    libraries = evaluation.manifest["libraries"]
    return Story(
        name=str(recipe["name"]),
        headline=headline({arm.name: arm for arm in arms}, metrics["pairs"]),
        arms=arms,
        pairs=tuple(
            (pair, row["difference"], row["p"], row["n_test"])
            for pair, row in metrics["pairs"].items()
        ),
        versus=tuple(_against(row) for row in metrics["versus"]),
        purchases=tuple(purchases_of(shown)),
        examples=_examples(first, behind),
        stages=tuple(_stage(a) for a in behind.values()),
        contamination=contamination(behind),
        recipe_yaml=_yaml(recipe),
        libraries=", ".join(f"{k} {v}" for k, v in sorted(libraries.items())),
        reliabilities=tuple(_reliabilities(shown)),
        maps=pool_maps(shown),
    )


def in_order(labels: Iterable[str]) -> list[str]:
    """Labels of arms as TITLES has their names, then those it has not, by name; an arm's budgets
    from the smallest on.
    """

    def place(label: str) -> tuple[int, str, float, str]:
        name, _, budget = label.partition("@")
        size = re.search(r"[\d.]+", budget)
        known = ORDER.index(name) if name in ORDER else len(ORDER)
        return known, "" if name in ORDER else name, float(size[0]) if size else 0.0, label

    return sorted(labels, key=place)


def title(label: str) -> str:
    """An arm's name as people read it, with its budget where it has several."""
    name, _, budget = label.partition("@")
    return f"{TITLES.get(name, name)}, {budget}" if budget else TITLES.get(name, name)


def headline(arms: Mapping[str, ArmRow], pairs: Mapping[str, Mapping[str, Any]]) -> str:
    """The result in a sentence or two, with intervals, whichever way it went.

    `pairs` are the paired tests, by "first - second" as metrics.json names them. Of several budgets
    it speaks of the largest.
    """
    best = next((a for n in _LEADING if (a := _largest(arms, n))), None)
    if best is None:
        return "No trained student was measured."
    seeds = f" over {best.n_seeds} seeds" if best.n_seeds > 1 else ""
    text = (
        f"{best.title} answers {best.accuracy:.1%} of {best.n_test} test questions right{seeds} "
        f"(95 % interval {best.low:.1%} to {best.high:.1%}) after {best.n_queries:g} teacher "
        f"queries for ${best.spend_usd:.2f}."
    )
    direct = _largest(arms, "direct")
    if direct is None or best is direct:
        return text
    names = {f"{best.name} - {direct.name}", f"{direct.name} - {best.name}"}
    untold: Mapping[str, Any] = {"p": 1.0, "test": "not tested"}
    told = next((pairs[pair] for pair in names & pairs.keys()), untold)
    if told["p"] >= 0.05:
        verdict = "this run does not show a difference"
    elif best.accuracy > direct.accuracy:
        verdict = "the assistant paid off"
    else:
        verdict = "here the assistant did harm"
    return (
        f"{text} Direct distillation with the same budget reaches {direct.accuracy:.1%} "
        f"({direct.low:.1%} to {direct.high:.1%}); on the same questions {verdict} "
        f"(p = {told['p']:.2g}, {told['test']})."
    )


def _largest(arms: Mapping[str, ArmRow], name: str) -> ArmRow | None:
    found = [label for label in in_order(arms) if label.partition("@")[0] == name]
    return arms[found[-1]] if found else None


def _first_models(evaluation: Artifact, behind: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """The answers of the first model of every arm: of the first seed at the first budget."""
    folders = [row["folder"] for row in evaluation.manifest["inputs"]]
    found: dict[str, Artifact] = {}
    for name, folder in zip(evaluation.manifest["settings"]["arms"], folders[1:], strict=True):
        found.setdefault(name, behind[folder])
    return found


def _arm(name: str, row: Mapping[str, Any]) -> ArmRow:
    domains = {d: (v["accuracy"], *v["ci95"]) for d, v in row["by_domain"].items()}
    return ArmRow(
        name=name,
        title=title(name),
        accuracy=row["accuracy"],
        low=row["ci95"][0],
        high=row["ci95"][1],
        n_test=row["n_test"],
        n_queries=row["n_queries"],
        spend_usd=row["spend_usd"],
        seconds=row["seconds"],
        by_domain=domains,
        n_seeds=row["n_seeds"],
    )


def _against(row: Mapping[str, Any]) -> Against:
    return Against(
        title=title(row["arm"]),
        reference=title(row["reference"]),
        difference=row["difference"],
        low=row["ci95"][0],
        high=row["ci95"][1],
        p_holm=row["p_holm"],
    )


def purchases_of(behind: Mapping[str, Artifact]) -> list[Purchase]:
    """Every buying under the budget, and what the check let through."""
    purchases = []
    for artifact in behind.values():
        if artifact.stage != "query_teacher":
            continue
        inputs = inputs_of(artifact, behind)
        strategy = inputs["select"].manifest["settings"]["strategy"]
        pool = read_rows(inputs["load_pool"].path / "pool.parquet", Example)
        domains = {e.id: e.domain for e in pool}
        bought = read_rows(artifact.path / "completions.parquet", Completion)
        n_bought = Counter(domains[c.id] for c in bought)
        checked = [a for a in behind.values() if _is_child(a, "check", artifact)]
        rows = read_rows(checked[0].path / "rationales.parquet", Rationale) if checked else []
        reasons = Counter(r.reason.partition(":")[0] for r in rows if not r.kept)
        facts = artifact.facts
        purchases.append(
            Purchase(
                title=f"Chosen by: {strategy}",
                n_queries=facts["n_queries"],
                spend_usd=facts["spend_microusd"] / 1e6,
                ended_by=facts["ended_by"],
                n_kept=sum(r.kept for r in rows),
                dropped=dict(reasons.most_common()),
                bought_by_domain={
                    d: (n_bought[d], n) for d, n in sorted(Counter(domains.values()).items())
                },
            )
        )
    return purchases


def _reliabilities(behind: Mapping[str, Artifact]) -> list[Reliability]:
    """What each stage that weighed rationales says of its confidences."""
    found = []
    for artifact in behind.values():
        told = artifact.facts.get("calibration")
        if told:
            bins = tuple((said, true, n) for said, true, n in told["bins"])
            title = WEIGHED.get(artifact.stage, artifact.stage)
            found.append(Reliability(title, told["n"], told["ece"], told["auroc"], bins))
    return found


def _examples(
    first: Mapping[str, Artifact], behind: Mapping[str, Artifact]
) -> tuple[SideBySide, ...]:
    """Test questions on which the shown arms differ, and a few on which they do not."""
    answers = {
        name: {r.id: r for r in read_rows(made.path / "predictions.parquet", Prediction)}
        for name, made in first.items()
        if name in _SHOWN
    }
    asked = next(a for a in behind.values() if a.stage == "load_test")
    test = read_rows(asked.path / "test.parquet", Example)
    both = [e for e in test if all(e.id in rows for rows in answers.values())]
    mixed = [e for e in both if len({rows[e.id].correct for rows in answers.values()}) > 1]
    same = [e for e in both if e not in mixed]
    chosen = (mixed[: _N_EXAMPLES - 3] + same)[:_N_EXAMPLES]
    return tuple(
        SideBySide(
            question=e.question,
            gold=e.answer or "",
            domain=e.domain,
            answers=tuple(
                (TITLES.get(n, n), answers[n][e.id].text, answers[n][e.id].correct)
                for n in in_order(answers)
            ),
        )
        for e in chosen
    )


def _stage(artifact: Artifact) -> StageRow:
    facts = ", ".join(
        f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}"
        for k, v in artifact.facts.items()
        if isinstance(v, int | float | str)
    )
    return StageRow(artifact.stage, artifact.path.name, artifact.manifest["seconds"], facts)


def contamination(behind: Mapping[str, Artifact]) -> str:
    """How many test questions stand in the train file, in a sentence."""
    for artifact in behind.values():
        if artifact.stage == "load_test":
            n, total = artifact.facts["n_also_in_train"], artifact.facts["n_test"]
            return f"{n} of {total} test questions stand word for word in the train file."
    return ""


def _is_child(artifact: Artifact, stage: str, parent: Artifact) -> bool:
    inputs = artifact.manifest["inputs"]
    return artifact.stage == stage and any(r["folder"] == parent.path.name for r in inputs)


def _yaml(recipe: Mapping[str, object]) -> str:
    text = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.dump(dict(recipe), text)
    return text.getvalue()
