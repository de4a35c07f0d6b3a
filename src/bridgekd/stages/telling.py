"""Gathers a report's story from an evaluation and everything it was made from."""

import io
import json
import shlex
from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML

from bridgekd import settings as of
from bridgekd.core.crossed import Estimate
from bridgekd.edges.rows import read_rows
from bridgekd.edges.store import Artifact, ancestors
from bridgekd.records import Example
from bridgekd.report.evidence import Reliability, StageRow
from bridgekd.report.story import Against, ArmRow, Gain, Pair, Reasoning, SeedRow, Story
from bridgekd.stages.cells import budget_of, seed_of
from bridgekd.stages.curves import model_labels, trainings_of
from bridgekd.stages.heading import headline, leading
from bridgekd.stages.mapping import pool_maps
from bridgekd.stages.naming import in_order, title
from bridgekd.stages.overlapping import compared_texts
from bridgekd.stages.showing import answers_of, side_by_side
from bridgekd.stages.spending import dropped_of, purchases_of
from bridgekd.stages.stats import CalibrationStats


def tell(evaluation: Artifact, s: of.Report) -> Story:
    """The story of one evaluation. Of several seeds or budgets the details are of the first."""
    behind = ancestors(evaluation)
    metrics = json.loads((evaluation.path / "metrics.json").read_text())
    arms = tuple(_arm(name, metrics["arms"][name]) for name in in_order(metrics["arms"]))
    by_label = _models(evaluation, metrics)
    first = {name: next(iter(made)) for name, made in _by_name(by_label).items()}
    shown = {name: a for made in first.values() for name, a in ancestors(made).items()}
    best = leading({arm.name: arm for arm in arms})
    answers = answers_of(first)
    lead = "" if best is None else best.name.partition("@")[0]
    asked = next(a for a in behind.values() if a.stage == "load_test")
    test = read_rows(asked.path / "test.parquet", Example)
    libraries = evaluation.manifest.libraries
    several = s.n_seeds > 1 or len(s.budgets) > 1
    return Story(
        name=str(s.recipe["name"]),
        headline=headline({arm.name: arm for arm in arms}, metrics["pairs"], metrics["chance"]),
        arms=arms,
        chance=(metrics["chance"]["accuracy"], metrics["chance"]["by"]),
        pairs=tuple(_pair(names, row) for names, row in metrics["pairs"].items()),
        versus=tuple(_against(row) for row in metrics["versus"]),
        purchases=tuple(purchases_of(behind, several=several)),
        examples=side_by_side(test, answers, lead),
        stages=tuple(_stage(a) for a in behind.values()),
        contamination=compared_texts(
            test, behind, (title(lead), answers[lead]) if lead in answers else None
        ),
        recipe_yaml=_yaml(s.recipe),
        command=command_of(s),
        libraries=", ".join(f"{k} {v}" for k, v in sorted(libraries.items())),
        reliabilities=tuple(_reliabilities(shown)),
        maps=pool_maps(shown),
        trainings=tuple(trainings_of(behind, model_labels(by_label), shown)),
        dropped=tuple(dropped_of(shown)),
        n_in_domain=_sizes(metrics, "by_domain"),
        n_with_steps=_sizes(metrics, "by_steps"),
        several=several,
        steps_told_by=metrics["steps_told_by"],
        tests=" and ".join(sorted({row["test"] for row in metrics["versus"]})),
    )


def command_of(s: of.Report) -> str:
    """The command that does all of it again, given its recipe in a file of the run's name."""
    recipe = shlex.quote(f"{s.recipe['name']}.yaml")
    if s.methods == (s.recipe["method"],) and s.n_seeds == 1 and not s.budgets:
        return f"bridgekd run {recipe}"
    parts = [f"bridgekd compare {recipe} --arms {','.join(s.methods)}"]
    parts += [f"--seeds {s.n_seeds}"] if s.n_seeds > 1 else []
    parts += [f"--budgets {','.join(map(str, s.budgets))}"] if s.budgets else []
    return " ".join(parts)


def _models(evaluation: Artifact, metrics: Mapping[str, Any]) -> dict[str, list[Artifact]]:
    """The answers of every model by the label of its arm, of the first seed first."""
    found: dict[str, list[tuple[int, Artifact]]] = {}
    answered = evaluation.get_inputs("predictions")
    names = evaluation.read_settings(of.Evaluate).arms
    for name, made in zip(names, answered, strict=True):
        behind = ancestors(made).values()
        label = f"{name}@{budget_of(behind)}"
        found.setdefault(label if label in metrics["arms"] else name, []).append(
            (seed_of(behind), made)
        )
    return {
        label: [made for _, made in sorted(each, key=lambda pair: pair[0])]
        for label, each in found.items()
    }


def _by_name(by_label: Mapping[str, list[Artifact]]) -> dict[str, list[Artifact]]:
    """The same by arm, the budgets in the order in which they were asked for."""
    found: dict[str, list[Artifact]] = {}
    for label, made in by_label.items():
        found.setdefault(label.partition("@")[0], []).extend(made)
    return found


def _arm(name: str, row: Mapping[str, Any]) -> ArmRow:
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
        by_domain={d: _figure(v, "accuracy") for d, v in row["by_domain"].items()},
        n_seeds=row["n_seeds"],
        by_steps={n: _figure(v, "accuracy") for n, v in row["by_steps"].items()},
        reasoning=_reasoning(row),
        gain=None if row["gain"] is None else _gain(row["gain"], row["gap_recovered"]),
        by_seed=tuple(
            SeedRow(r["seed"], _figure(r, "accuracy"), r["n_queries"], r["spend_usd"])
            for r in row["by_seed"]
        ),
    )


def _sizes(metrics: Mapping[str, Any], groups: str) -> dict[str, int]:
    """Test questions of every group: as many as the arm has that was asked most of them."""
    found: dict[str, int] = {}
    for arm in metrics["arms"].values():
        for group, row in arm[groups].items():
            found[group] = max(found.get(group, 0), row["n_test"])
    return found


def _reasoning(row: Mapping[str, Any]) -> Reasoning:
    learnt = row["lessons"] or {}
    return Reasoning(
        words=_figure(row["words"], "mean"),
        wrong_steps=_perhaps(row["wrong_steps"], "mean"),
        learnt_words=_perhaps(learnt.get("words"), "mean"),
        learnt_wrong=_perhaps(learnt.get("wrong_steps"), "mean"),
        n_learnt=tuple(learnt.get("n_kept", ())),
    )


def _gain(row: Mapping[str, Any], gap: Mapping[str, Any] | None) -> Gain:
    return Gain(
        over=title(row["over"]),
        points=_figure(row, "points"),
        verdict=row["verdict"],
        usd=_perhaps(row["usd_per_point"], "value"),
        queries=_perhaps(row["queries_per_point"], "value"),
        gap=_perhaps(gap, "share"),
    )


def _figure(row: Mapping[str, Any], name: str) -> Estimate:
    return Estimate(row[name], *row["ci95"])


def _perhaps(row: Mapping[str, Any] | None, name: str) -> Estimate | None:
    return None if row is None else _figure(row, name)


def _pair(names: str, row: Mapping[str, Any]) -> Pair:
    second, _, first = names.partition(" - ")
    return Pair(f"{title(second)} minus {title(first)}", row["difference"], row["p"], row["n_test"])


def _against(row: Mapping[str, Any]) -> Against:
    return Against(
        title=title(row["arm"]),
        reference=title(row["reference"]),
        difference=row["difference"],
        low=row["ci95"][0],
        high=row["ci95"][1],
        p_holm=row["p_holm"],
    )


def _reliabilities(behind: Mapping[str, Artifact]) -> list[Reliability]:
    """What each stage that weighed rationales says of its confidences."""
    found = []
    for artifact in behind.values():
        told = artifact.read_stats(CalibrationStats).calibration
        if told is not None:
            title = artifact.manifest.title
            found.append(Reliability(title, told.n, told.ece, told.auroc, told.bins))
    return found


def _stage(artifact: Artifact) -> StageRow:
    facts = ", ".join(
        f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}"
        for k, v in artifact.manifest.stats.items()
        if isinstance(v, int | float | str)
    )
    return StageRow(artifact.stage, artifact.path.name, artifact.manifest.seconds, facts)


def _yaml(recipe: Mapping[str, object]) -> str:
    text = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.dump(dict(recipe), text)
    return text.getvalue()
