"""Gathers a report's story from an evaluation and everything it was made from."""

import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from ruamel.yaml import YAML

from bridgekd.edges.rows import read_rows
from bridgekd.edges.store import Artifact, ancestors
from bridgekd.records import Completion, Example, Prediction, Rationale
from bridgekd.report.story import ArmRow, Purchase, Reliability, SideBySide, StageRow, Story
from bridgekd.stages.mapping import inputs_of, pool_maps

TITLES = {
    "teacher": "Teacher",
    "assistant_base": "Assistant, untouched",
    "assistant_warm": "Assistant, warmed up",
    "assistant": "Assistant, trained",
    "random_assistant": "Assistant, random picks",
    "student_base": "Student, untouched",
    "student_instructed": "Student, instructed",
    "direct": "Student, direct",
    "ta_in_the_loop": "Student, TA-in-the-Loop",
    "random": "Student, random picks",
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
    """The story of one evaluation."""
    behind = ancestors(evaluation)
    metrics = json.loads((evaluation.path / "metrics.json").read_text())
    names = in_order(metrics["arms"])
    arms = tuple(_arm(name, metrics["arms"][name]) for name in names)
    pairs = tuple(
        (pair, row["difference"], row["p_mcnemar"], row["n_test"])
        for pair, row in metrics["pairs"].items()
    )
    libraries = evaluation.manifest["libraries"]
    return Story(
        name=str(recipe["name"]),
        headline=headline(
            {arm.name: arm for arm in arms},
            {pair: row["p_mcnemar"] for pair, row in metrics["pairs"].items()},
        ),
        arms=arms,
        pairs=pairs,
        purchases=tuple(purchases_of(behind)),
        examples=_examples(evaluation, behind),
        stages=tuple(_stage(a) for a in behind.values()),
        contamination=contamination(behind),
        recipe_yaml=_yaml(recipe),
        libraries=", ".join(f"{k} {v}" for k, v in sorted(libraries.items())),
        reliabilities=tuple(_reliabilities(behind)),
        maps=pool_maps(behind),
    )


def in_order(arms: Iterable[str]) -> list[str]:
    """Names of arms as TITLES has them, then those it has not, by name."""
    return sorted(arms, key=lambda n: (ORDER.index(n), "") if n in ORDER else (len(ORDER), n))


def headline(arms: Mapping[str, ArmRow], p_values: Mapping[str, float]) -> str:
    """The result in a sentence or two, with intervals, whichever way it went.

    `p_values` are of the paired tests, by "first - second" as metrics.json names them.
    """
    best = next((arms[n] for n in _LEADING if n in arms), None)
    if best is None:
        return "No trained student was measured."
    text = (
        f"{best.title} answers {best.accuracy:.1%} of {best.n_test} test questions right "
        f"(95 % interval {best.low:.1%} to {best.high:.1%}) after {best.n_queries} teacher queries "
        f"for ${best.spend_usd:.2f}."
    )
    direct = arms.get("direct")
    if direct is None or best is direct:
        return text
    names = {f"{best.name} - direct", f"direct - {best.name}"}
    p = min((p_values[pair] for pair in names & p_values.keys()), default=1.0)
    if p >= 0.05:
        verdict = "this run does not show a difference"
    elif best.accuracy > direct.accuracy:
        verdict = "the assistant paid off"
    else:
        verdict = "here the assistant did harm"
    return (
        f"{text} Direct distillation with the same budget reaches {direct.accuracy:.1%} "
        f"({direct.low:.1%} to {direct.high:.1%}); on the same questions {verdict} "
        f"(p = {p:.2g}, McNemar)."
    )


def _arm(name: str, row: Mapping[str, Any]) -> ArmRow:
    domains = {d: (v["accuracy"], *v["ci95"]) for d, v in row["by_domain"].items()}
    return ArmRow(
        name=name,
        title=TITLES.get(name, name),
        accuracy=row["accuracy"],
        low=row["ci95"][0],
        high=row["ci95"][1],
        n_test=row["n_test"],
        n_queries=row["n_queries"],
        spend_usd=row["spend_usd"],
        seconds=row["seconds"],
        by_domain=domains,
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


def _examples(evaluation: Artifact, behind: Mapping[str, Artifact]) -> tuple[SideBySide, ...]:
    """Test questions on which the shown arms differ, and a few on which they do not."""
    names = evaluation.manifest["settings"]["arms"]
    folders = [row["folder"] for row in evaluation.manifest["inputs"]]
    answers: dict[str, dict[str, Prediction]] = {}
    for name, folder in zip(names, folders[1:], strict=True):
        if name in _SHOWN:
            rows = read_rows(behind[folder].path / "predictions.parquet", Prediction)
            answers[name] = {r.id: r for r in rows}
    test = read_rows(behind[folders[0]].path / "test.parquet", Example)
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
