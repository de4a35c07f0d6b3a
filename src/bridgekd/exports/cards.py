"""The two cards of an exported folder, built with `huggingface_hub`.

The cards contain the names of files and models, and no path of the user's machine.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from bridgekd.grading.answer_type import load_answer_type
from bridgekd.grading.graders import GRADERS
from bridgekd.io.artifact_store import Artifact, Stats, find_ancestors
from bridgekd.io.metrics_file import read_metrics
from bridgekd.io.model_license import find_license
from bridgekd.io.sources import get_model_and_revision
from bridgekd.paths import resolve_path
from bridgekd.prompts import render_answer_prompt, render_cot_prompt
from bridgekd.recipe import BudgetOptions
from bridgekd.records import Example, TrainingExample
from bridgekd.report.contamination import describe_contamination
from bridgekd.report.detail_tables import format_counts
from bridgekd.report.purchases import gather_purchases
from bridgekd.report.tables import (
    Table,
    escape_cell,
    format_interval,
    format_percent,
    format_usd,
    render_markdown,
)
from bridgekd.runs.metadata import EvaluatedModel, FinishedRun, find_base_model
from bridgekd.stages.load_data import LoadPoolStats
from bridgekd.stages.query_teacher import QueryTeacherSettings, query_teacher
from bridgekd.stages.stats import TrainStats
from bridgekd.stages.training_examples import read_rationales
from bridgekd.stats.metrics import ArmMetrics, GroupAccuracy

if TYPE_CHECKING:
    from bridgekd import lm

_ALSO_SHOWN = ("student_base", "assistant_base", "teacher")  # beside the model, if evaluated
_TERMS = """\
- **Terms of the teacher.** Every rationale comes from {teacher}, directly or through an assistant
  that was trained on its answers. Many providers restrict the use of models that were trained on
  their outputs, for example to compete with them. bridgekd did not check this. Read the terms of
  your provider before you use or share this.
- **License of the base model.** {license_text}
- **Data.** Questions and answers come from {train_data}. Check under which terms you may share them
  and whether they contain personal data."""
_ANSWER_ONLY_NOTE = (
    "The model learned to explain and to answer as two tasks. This prompt returns the answer only, "
    "without reasoning."
)
_CHOICES = ("first option", "second option")


class _Filter(Stats):
    """The setting that all stages with a filter of rationales share."""

    filter: str


@dataclass(frozen=True, slots=True)
class ExportedArm:
    """One arm of a finished run, for both cards. `command` reproduces the run."""

    run: FinishedRun
    arm: EvaluatedModel
    examples: Sequence[TrainingExample]
    merged: "lm.MergeResult"
    command: str


def render_model_card(exported: ExportedArm) -> str:
    """Return README.md of the exported folder."""
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    run, arm = exported.run, exported.arm
    metrics = read_metrics(run.evaluation.path).arms
    base, own = _find_base_model(run, arm), metrics[arm.name]
    base_license = find_license(base)
    test_data = _get_source_name(run, "load_test")
    result = EvalResult(
        task_type="text-generation",
        dataset_type=test_data,
        dataset_name=test_data,
        metric_type="accuracy",
        metric_value=own.accuracy,
        metric_args={"ci95": list(own.ci95), "n_test": own.n_test},
    )
    card_data = ModelCardData(
        base_model=_get_name(base) if base.stage == "hub" else None,
        eval_results=[result],
        library_name="transformers",
        model_name=f"{run.name} {arm.name}",
        pipeline_tag="text-generation",
        tags=["bridgekd", "distillation", "reasoning"],
        license=base_license.get("license"),
        license_name=base_license.get("license_name"),
        license_link=base_license.get("license_link"),
    )
    card = ModelCard.from_template(
        card_data,
        template_str=_read_template("model_card.md"),
        base=f"{escape_cell(_get_name(base))}{'' if base.stage == 'hub' else ' (a local folder)'}",
        test_data=escape_cell(test_data),
        contamination=describe_contamination(run.ancestors),
        accuracy_tables=_render_accuracy_tables(arm.name, metrics),
        **_describe_both(exported, base, base_license),
        **_describe_prompt(exported),
        **_describe_training(exported, own),
    )
    return f"{card}\n"


def _render_accuracy_tables(name: str, metrics: Mapping[str, ArmMetrics]) -> str:
    arms = {metrics[n].title: metrics[n] for n in (name, *_ALSO_SHOWN) if n in metrics}
    domains = {domain: group for domain, group in metrics[name].by_domain.items() if domain}
    tables = [_build_accuracy_table("model", arms)]
    tables += [_build_accuracy_table("domain", domains)] if domains else []
    return "\n\n".join(map(render_markdown, tables))


def _describe_prompt(exported: ExportedArm) -> dict[str, str]:
    run, arm, merged = exported.run, exported.arm, exported.merged
    is_answer_only = arm.predicted.prompt_mode == "answer_only"
    suffix = _get_prompt_suffix(run, is_answer_only)
    notes = [*merged.notes, _ANSWER_ONLY_NOTE] if is_answer_only else merged.notes
    return {
        "prompt_content": "the question and its choices" if "(A)" in suffix else "the question",
        "prompt_suffix": json.dumps(suffix),
        "max_new_tokens": f"{arm.max_new_tokens:,}",
        "notes": "".join(f"\n- {note}" for note in notes),
    }


def _describe_training(exported: ExportedArm, metrics: ArmMetrics) -> dict[str, str]:
    run, model, merged = exported.run, exported.arm.model, exported.merged
    pool = model.get_input("pool").read_stats(LoadPoolStats)
    training, versions = model.read_stats(TrainStats), model.manifest.libraries
    sources = Counter(example.source for example in exported.examples)
    return {
        "run": run.name,
        "arm": exported.arm.name,
        "command": exported.command,
        "dtype": merged.dtype,
        "n_parameters": f"{merged.n_parameters:,}",
        "libraries": ", ".join(f"{n} {versions[n]}" for n in ("bridgekd", "transformers", "torch")),
        "n_pool": f"{pool.n_pool:,}",
        "n_validation": f"{pool.n_validation:,}",
        "n_test": f"{metrics.n_test:,}",
        "budget": _format_budget(_find_budget(run.recipe.budget, model)),
        "n_queries": f"{metrics.n_queries:,g}",
        "spend": format_usd(metrics.spend_usd),
        "n_examples": f"{len(exported.examples):,}",
        "n_by_source": ", ".join(f"{n:,} by the {name}" for name, n in sorted(sources.items())),
        "n_too_long": f"{training.n_too_long:,}",
        "n_updates": f"{training.n_updates:,}",
        "best_update": f"{training.best_update:,}",
    }


def render_dataset_card(exported: ExportedArm) -> str:
    """Return README.md of the training examples."""
    from huggingface_hub import DatasetCard, DatasetCardData

    arm, examples = exported.arm, exported.examples
    rationales, base = arm.model.get_inputs("rationales"), _find_base_model(exported.run, arm)
    data_files = [{"split": "train", "path": "train.parquet"}]
    card_data = DatasetCardData(
        license="unknown",
        task_categories=["text-generation"],
        tags=["bridgekd", "distillation", "synthetic"],
        configs=[{"config_name": "default", "data_files": data_files}],
    )
    dropped = Counter(r.reason.partition(":")[0] for r in read_rationales(rationales) if not r.kept)
    tables = (
        _build_count_table("source", "rows", sorted(Counter(e.source for e in examples).items())),
        _build_count_table("dropped rationales", "number", dropped.most_common()),
        _build_purchase_table(arm.model),
    )
    card = DatasetCard.from_template(
        card_data,
        template_str=_read_template("dataset_card.md"),
        **_describe_both(exported, base, find_license(base)),
        n_rows=f"{len(examples):,}",
        n_questions=f"{len({e.id for e in examples}):,}",
        tables="\n\n".join(map(render_markdown, tables)),
        filters=_describe_filters(rationales),
    )
    return f"{card}\n"


def _describe_both(
    exported: ExportedArm, base: Artifact, base_license: Mapping[str, str]
) -> dict[str, str]:
    """Return the values that both templates use."""
    run, arm = exported.run, exported.arm
    name = escape_cell(_get_name(base))
    license_text = f"The license of {name} is unknown. Find it before you share this."
    if base_license:
        link = f" ({base_license['license_link']})" if "license_link" in base_license else ""
        license_id = base_license.get("license_name", base_license["license"])
        license_text = f"The card of {name} says `{license_id}`{link}. It also applies here."
    names = {
        "teacher": escape_cell(f"{run.recipe.teacher.model} ({run.recipe.teacher.provider})"),
        "train_data": escape_cell(_get_source_name(run, "load_pool")),
    }
    return names | {
        "title": escape_cell(f"{run.name}: {arm.arm.title}"),
        "method_text": f"{arm.arm.card_sentence}{_describe_sources(exported)}",
        "terms": _TERMS.format(license_text=license_text, **names),
    }


def _describe_sources(exported: ExportedArm) -> str:
    """Return a sentence if student.rationales is not what the card sentence of a method says."""
    source = exported.run.recipe.student.rationales
    if source == "assistant":
        return ""
    authors = " and the ".join(sorted({example.source for example in exported.examples}))
    return f" In this run (`student.rationales: {source}`), the rationales are of the {authors}."


def _build_accuracy_table(
    head: str, rows: Mapping[str, ArmMetrics] | Mapping[str, GroupAccuracy]
) -> Table:
    cells = tuple(
        (name, format_percent(row.accuracy), format_interval(row.ci95), f"{row.n_test:,}")
        for name, row in rows.items()
    )
    return Table("", (head, "accuracy", "95 % interval", "test questions"), cells, "lrrr")


def _build_purchase_table(model: Artifact) -> Table:
    rows = tuple(
        (p.title, f"{p.n_queries:,}", f"{p.n_kept:,}", format_counts(p.dropped))
        for p in gather_purchases(find_ancestors(model))
    )
    return Table("", ("purchase", "answers", "kept", "dropped"), rows, "lrrl")


def _build_count_table(name: str, number: str, counts: Iterable[tuple[str, int]]) -> Table:
    rows = tuple((key, f"{n:,}") for key, n in counts) or (("none", "0"),)
    return Table("", (name, number), rows, "lr")


def _describe_filters(rationales: Sequence[Artifact]) -> str:
    checked = list(rationales)
    while any(inputs := [a.get_inputs("rationales") for a in checked]):
        checked = [b for a, found in zip(checked, inputs, strict=True) for b in found or (a,)]
    filters = sorted({a.read_settings(_Filter).filter for a in checked})
    text = ", ".join(f"`{name}`" for name in filters)
    unchecked = "; with `all`, no answer was checked against the gold answer"
    return text + unchecked * ("all" in filters)


def _find_base_model(run: FinishedRun, arm: EvaluatedModel) -> Artifact:
    """Return the base model, in the folder that the recipe names or as a Hub id."""
    source = find_base_model(arm.model)
    if source.stage == "hub":
        return Artifact("hub", source.fingerprint, Path(_get_public_name(source)))
    options = run.recipe.assistant if arm.arm.role == "assistant" else run.recipe.student
    return Artifact("model", source.fingerprint, resolve_path(run.folder, options.model))


def _get_name(base: Artifact) -> str:
    return get_model_and_revision(base)[0] if base.stage == "hub" else base.path.name


def _get_public_name(source: Artifact) -> str:
    """Return a Hub id, or the name of a file or folder without its path."""
    is_on_hub = source.stage == "hub"
    return source.fingerprint.removeprefix("hub:") if is_on_hub else source.path.name


def _get_source_name(run: FinishedRun, stage: str) -> str:
    """Return the name of the user's source of a stage; it is the same for all seeds."""
    artifact = next(a for a in run.ancestors.values() if a.stage == stage)
    return _get_public_name(artifact.get_input("source"))


def _find_budget(budget: BudgetOptions, model: Artifact) -> BudgetOptions:
    """Return the budget of the model's own purchases; the recipe's if it has none."""
    for artifact in find_ancestors(model).values():
        if artifact.stage == query_teacher.name:
            return artifact.read_settings(QueryTeacherSettings).budget
    return budget


def _format_budget(budget: BudgetOptions) -> str:
    unit = " of the pool's questions" if isinstance(budget.queries, str) else " queries"
    limits = (
        (budget.queries, f"{budget.queries}{unit}"),
        (budget.usd, f"${budget.usd or 0:,.2f}"),
        (budget.tokens, f"{budget.tokens or 0:,} tokens"),
        (budget.accepted_rationales, f"{budget.accepted_rationales or 0:,} accepted rationales"),
    )
    texts = [text for limit, text in limits if limit is not None]
    return ", ".join(texts) + "; the first limit that is reached" * (len(texts) > 1)


def _get_prompt_suffix(run: FinishedRun, is_answer_only: bool) -> str:
    """Return the text after the question in a prompt of the training."""
    answer_type = load_answer_type(GRADERS.resolve(run.recipe.data.answer_type, run.folder))
    choices = _CHOICES if answer_type.has_choices else ()
    render_prompt = render_answer_prompt if is_answer_only else render_cot_prompt
    (message,) = render_prompt(Example("", "", choices=choices))
    return message.content


def _read_template(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")
