"""The two cards of an exported folder, built with `huggingface_hub`.

The cards name files and models, never paths of the user's machine.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from bridgekd import lm
from bridgekd.grading.answer_type import load_answer_type
from bridgekd.grading.graders import GRADERS
from bridgekd.io.artifact_store import Artifact, Stats, find_ancestors
from bridgekd.io.metrics_file import read_metrics
from bridgekd.io.model_license import find_license
from bridgekd.io.sources import get_model_and_revision
from bridgekd.prompts import render_answer_prompt, render_cot_prompt
from bridgekd.recipe import BudgetOptions
from bridgekd.records import Example, TrainingExample
from bridgekd.report.contamination import describe_contamination
from bridgekd.report.purchases import collect_purchases
from bridgekd.report.tables import (
    Table,
    escape_cell,
    format_percent,
    format_usd,
    render_markdown,
)
from bridgekd.runs.metadata import EvaluatedModel, FinishedRun, find_base_model, find_rationales
from bridgekd.stages.load_data import LoadPoolStats
from bridgekd.stages.query_teacher import QueryTeacherSettings, query_teacher
from bridgekd.stages.stats import TrainStats
from bridgekd.stages.training_examples import read_rationales
from bridgekd.stats.metrics import ArmMetrics, GroupAccuracy

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

_ALSO_SHOWN = ("student_base", "assistant_base", "teacher")  # beside the model, if evaluated
_TERMS = """\
- **Terms of the teacher.** Every rationale comes from {teacher}, directly or through an assistant
  that was trained on its answers. Many providers restrict the use of models that were trained on
  their outputs, for example to compete with them. bridgekd did not check this. Read the terms of
  your provider before you use or share this.
- **License of the base model.** {license_text}
- **Data.** Questions and answers come from {train_data}. Check under which terms you may share them
  and whether they contain personal data."""
_CHOICES = ("first option", "second option")


class _Filter(Stats):
    """What the settings of all stages that let rationales through have."""

    filter: str


@dataclass(frozen=True, slots=True)
class ExportedArm:
    """What both cards describe: one arm of a finished run, its training examples and weights."""

    run: FinishedRun
    arm: EvaluatedModel
    examples: Sequence[TrainingExample]
    merged: "lm.MergeResult"
    command: str  # that makes the run again


def render_model_card(exported: ExportedArm) -> str:
    """Return README.md of the exported folder."""
    from huggingface_hub import ModelCard, ModelCardData

    run, arm, merged = exported.run, exported.arm, exported.merged
    metrics = read_metrics(run.evaluation.path).arms
    base = _find_base_model(run, arm)
    shown = {metrics[n].title: metrics[n] for n in (arm.name, *_ALSO_SHOWN) if n in metrics}
    domains = {name: group for name, group in metrics[arm.name].by_domain.items() if name}
    tables = [_build_accuracy_table("model", shown)]
    tables += [_build_accuracy_table("domain", domains)] if domains else []
    test_data = _get_public_name(_get_source(run.ancestors, "load_test"))
    answer_type = load_answer_type(GRADERS.resolve(run.recipe.data.answer_type, run.folder))
    suffix, known_license = _get_prompt_suffix(arm, answer_type.has_choices), find_license(base)
    card_data = ModelCardData(
        base_model=_get_name(base) if base.stage == "hub" else None,
        eval_results=[_build_eval_result(metrics[arm.name], test_data)],
        library_name="transformers",
        model_name=f"{run.name} {arm.name}",
        pipeline_tag="text-generation",
        tags=["bridgekd", "distillation", "reasoning"],
        license=known_license.get("license"),
        license_name=known_license.get("license_name"),
        license_link=known_license.get("license_link"),
    )
    card = ModelCard.from_template(
        card_data,
        template_str=_read_template("model_card.md"),
        **_describe_both(exported),
        base=f"{escape_cell(_get_name(base))}{'' if base.stage == 'hub' else ' (a local folder)'}",
        run=run.name,
        arm=arm.name,
        n_parameters=f"{merged.n_parameters:,}",
        dtype=merged.dtype,
        libraries=_list_libraries(arm.model),
        accuracy_tables="\n\n".join(map(render_markdown, tables)),
        test_data=escape_cell(test_data),
        contamination=describe_contamination(run.ancestors),
        prompt_content="the question and its choices" if "(A)" in suffix else "the question",
        prompt_suffix=json.dumps(suffix),
        training_table=render_markdown(_build_training_table(exported, metrics[arm.name])),
        n_test=f"{metrics[arm.name].n_test:,}",
        max_new_tokens=f"{arm.predicted.max_new_tokens:,}",
        notes="".join(f"\n- {note}" for note in _list_notes(arm, merged)),
        command=exported.command,
    )
    return f"{card}\n"


def render_dataset_card(exported: ExportedArm) -> str:
    """Return README.md of the training examples."""
    from huggingface_hub import DatasetCard, DatasetCardData

    arm, examples = exported.arm, exported.examples
    rationales = find_rationales(arm.model)
    card_data = DatasetCardData(
        license="unknown",
        task_categories=["text-generation"],
        tags=["bridgekd", "distillation", "synthetic"],
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": "train", "path": "train.parquet"}],
            }
        ],
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
        **_describe_both(exported),
        n_rows=f"{len(examples):,}",
        n_questions=f"{len({e.id for e in examples}):,}",
        tables="\n\n".join(map(render_markdown, tables)),
        filters=_list_filters(rationales),
    )
    return f"{card}\n"


def _describe_both(exported: ExportedArm) -> dict[str, str]:
    """What both templates use."""
    run, arm = exported.run, exported.arm
    teacher = escape_cell(f"{run.recipe.teacher.model} ({run.recipe.teacher.provider})")
    train_data = escape_cell(_get_public_name(_get_source(run.ancestors, "load_pool")))
    return {
        "title": escape_cell(f"{run.name}: {arm.arm.title}"),
        "method_text": arm.arm.card_sentence,
        "teacher": teacher,
        "train_data": train_data,
        "terms": _describe_terms(_find_base_model(run, arm), teacher, train_data),
    }


def _describe_terms(base: Artifact, teacher: str, train_data: str) -> str:
    name, known = escape_cell(_get_name(base)), find_license(base)
    license_text = f"The license of {name} is unknown. Find it before you share this."
    if known:
        link = f" ({known['license_link']})" if "license_link" in known else ""
        license_id = known.get("license_name", known["license"])
        license_text = f"The card of {name} says `{license_id}`{link}. It also applies here."
    return _TERMS.format(teacher=teacher, license_text=license_text, train_data=train_data)


def _build_accuracy_table(
    head: str, rows: Mapping[str, ArmMetrics] | Mapping[str, GroupAccuracy]
) -> Table:
    return Table(
        "",
        (head, "accuracy", "95 % interval", "test questions"),
        tuple(
            (
                name,
                format_percent(row.accuracy),
                f"{format_percent(row.ci95[0])} to {format_percent(row.ci95[1])}",
                f"{row.n_test:,}",
            )
            for name, row in rows.items()
        ),
        "lrrr",
    )


def _build_training_table(exported: ExportedArm, metrics: ArmMetrics) -> Table:
    run, model, examples = exported.run, exported.arm.model, exported.examples
    pool = model.get_input("pool").read_stats(LoadPoolStats)
    training = model.read_stats(TrainStats)
    train_data = _get_public_name(_get_source(run.ancestors, "load_pool"))
    sources = Counter(example.source for example in examples)
    by_source = ", ".join(f"{n:,} by the {who}" for who, n in sorted(sources.items()))
    rows = (
        ("pool", f"{pool.n_pool:,} questions of {train_data}"),
        ("validation split", f"{pool.n_validation:,} questions"),
        ("teacher", f"{run.recipe.teacher.model} ({run.recipe.teacher.provider})"),
        ("budget", _format_budget(_find_budget(run.recipe.budget, model))),
        ("purchased", f"{metrics.n_queries:,g} answers for {format_usd(metrics.spend_usd)}"),
        ("rows", f"{len(examples):,}: {by_source}"),
        ("rows that were too long", f"{training.n_too_long:,}"),
        ("optimizer updates", f"{training.n_updates:,}"),
        ("weights after update", f"{training.best_update:,}"),
    )
    return Table("", ("", ""), rows, "ll")


def _build_purchase_table(model: Artifact) -> Table:
    rows = tuple(
        (
            purchase.title,
            f"{purchase.n_queries:,}",
            f"{purchase.n_kept:,}",
            ", ".join(f"{why}: {n:,}" for why, n in (purchase.dropped or {}).items()) or "none",
        )
        for purchase in collect_purchases(find_ancestors(model))
    )
    return Table("", ("purchase", "answers", "kept", "dropped"), rows, "lrrl")


def _build_count_table(what: str, number: str, counts: Iterable[tuple[str, int]]) -> Table:
    rows = tuple((name, f"{n:,}") for name, n in counts) or (("none", "0"),)
    return Table("", (what, number), rows, "lr")


def _build_eval_result(row: ArmMetrics, test_data: str) -> "EvalResult":
    from huggingface_hub import EvalResult

    return EvalResult(
        task_type="text-generation",
        dataset_type=test_data,
        dataset_name=test_data,
        metric_type="accuracy",
        metric_value=row.accuracy,
        metric_args={"ci95": list(row.ci95), "n_test": row.n_test},
    )


def _list_notes(arm: EvaluatedModel, merged: "lm.MergeResult") -> list[str]:
    notes = list(merged.notes)
    if arm.predicted.prompt_mode == "answer_only":
        notes.append(
            "The model learned to explain and to answer as two tasks. This prompt returns the "
            "answer only, without reasoning."
        )
    return notes


def _list_filters(rationales: Sequence[Artifact]) -> str:
    filters = sorted({a.read_settings(_Filter).filter for a in rationales})
    text = ", ".join(f"`{name}`" for name in filters)
    unchecked = "; with `all`, no answer was checked against the gold answer"
    return text + unchecked * ("all" in filters)


def _list_libraries(model: Artifact) -> str:
    versions = model.manifest.libraries
    return ", ".join(f"{name} {versions[name]}" for name in ("bridgekd", "transformers", "torch"))


def _find_base_model(run: FinishedRun, arm: EvaluatedModel) -> Artifact:
    """The model that training started from, at the place that the recipe names."""
    source = find_base_model(arm.model)
    if source.stage == "hub":
        return Artifact("hub", source.fingerprint, Path(_get_public_name(source)))
    sized = run.recipe.assistant if arm.arm.role == "assistant" else run.recipe.student
    return Artifact("model", source.fingerprint, run.folder / Path(sized.model).expanduser())


def _get_name(base: Artifact) -> str:
    return get_model_and_revision(base)[0] if base.stage == "hub" else base.path.name


def _get_public_name(source: Artifact) -> str:
    """A Hub id, or the name of a file or folder without its path."""
    is_on_hub = source.stage == "hub"
    return source.fingerprint.removeprefix("hub:") if is_on_hub else source.path.name


def _get_source(behind: Mapping[str, Artifact], stage: str) -> Artifact:
    """A user's source of a stage; it is the same for all seeds."""
    return next(a for a in behind.values() if a.stage == stage).get_input("source")


def _find_budget(budget: BudgetOptions, model: Artifact) -> BudgetOptions:
    """The budget of the model's own purchases; the recipe's if it has none."""
    bought = [a for a in find_ancestors(model).values() if a.stage == query_teacher.name]
    return bought[0].read_settings(QueryTeacherSettings).budget if bought else budget


def _format_budget(budget: BudgetOptions) -> str:
    queries = budget.queries
    unit = " of the pool's questions" if isinstance(queries, str) else " queries"
    parts = [f"{queries}{unit}"] if queries is not None else []
    parts += [f"${budget.usd:,.2f}"] if budget.usd is not None else []
    parts += [f"{budget.tokens:,} tokens"] if budget.tokens is not None else []
    parts += (
        [f"{budget.accepted_rationales:,} accepted rationales"]
        if budget.accepted_rationales is not None
        else []
    )
    return f"{', '.join(parts)}; the first limit that was reached" if len(parts) > 1 else parts[0]


def _get_prompt_suffix(arm: EvaluatedModel, has_choices: bool) -> str:
    """What follows the question in a prompt of the training."""
    choices = _CHOICES if has_choices else ()
    build_prompt = (
        render_answer_prompt if arm.predicted.prompt_mode == "answer_only" else render_cot_prompt
    )
    (message,) = build_prompt(Example("", "", choices=choices))
    return message.content


def _read_template(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")
