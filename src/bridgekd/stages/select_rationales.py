"""Which of a question's kept rationales the student learns from."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bridgekd import lm
from bridgekd.io.artifact_store import Artifact, stage
from bridgekd.io.read_pool import index_by_id, read_pool
from bridgekd.io.row_files import write_rows
from bridgekd.io.sources import get_model_and_revision
from bridgekd.prompts import ANSWER_PREFIX
from bridgekd.rationales import SELECTORS, Candidates, Selector, SentenceScore
from bridgekd.recipe import Recipe, Role
from bridgekd.records import Example, Rationale
from bridgekd.stages.model_backend import BackendSettings, load_artifact_model, open_backend
from bridgekd.stages.run_context import RunContext
from bridgekd.stages.stats import KeptStats
from bridgekd.stages.training_examples import read_rationales
from bridgekd.variants import VariantSettings


class SelectRationalesSettings(BackendSettings):
    selector: VariantSettings

    def load_selector(self) -> Selector:
        return SELECTORS.load(self.selector)


class SelectRationalesStats(KeptStats):
    """n_candidates: rationales that the filters kept. mean_tokens: of those that are kept now, in
    tokens of the student.
    """

    n_candidates: int
    mean_tokens: float


def build_select_rationales_settings(recipe: Recipe, folder: Path) -> SelectRationalesSettings:
    """Return what a selection of rationales depends on."""
    selector = SELECTORS.resolve(recipe.student.selector, folder)
    needs_confidence = SELECTORS.load(selector).needs_confidence
    scoring = recipe.assistant.scoring_backend if needs_confidence else "transformers"
    return SelectRationalesSettings(selector=selector, scoring=scoring)


@stage(version=1, title="Rationales for the student")
def select_rationales(
    output_dir: Path,
    settings: SelectRationalesSettings,
    ctx: RunContext,
    pool: Artifact,
    rationales: Sequence[Artifact],
    student: Artifact,
    assistant: Artifact,
) -> SelectRationalesStats:
    """Write the rationales of several stages, in order; those that the selector does not keep are
    dropped. `student` is the model before its training.
    """
    rows, selector = read_rationales(rationales), settings.load_selector()
    kept = [i for i, row in enumerate(rows) if row.kept]
    by_id = index_by_id(read_pool(pool), (rows[i].id for i in kept))
    pairs = [(by_id[rows[i].id], rows[i].text) for i in kept]
    n_tokens = lm.count_text_tokens(*get_model_and_revision(student), [t for _, t in pairs])
    confidences: Sequence[float] = ()
    sentences: Sequence[Sequence[SentenceScore]] = ()
    if selector.needs_confidence:
        with open_backend(assistant, settings.scoring, output_dir, ctx) as backend:
            confidences = backend.estimate_confidence(
                [(by_id[r.id], f"{r.text}\n{ANSWER_PREFIX} {r.answer}") for r in rows if r.kept],
                measure="likelihood",
                batch_size=ctx.runtime.assistant_batch_size,
                progress=ctx.progress,
                label="score rationales",
            ).tolist()
    if selector.needs_sentences:
        sentences = _score_sentences(pairs, assistant, student, ctx)
    options = SELECTORS.parse_options(settings.selector)
    questions: dict[str, list[int]] = {}
    for k, i in enumerate(kept):
        questions.setdefault(rows[i].id, []).append(k)
    chosen: set[int] = set()
    for members in questions.values():
        candidates = Candidates(
            texts=[pairs[k][1] for k in members],
            n_tokens=[n_tokens[k] for k in members],
            confidences=[confidences[k] for k in members] if confidences else (),
            sentences=[sentences[k] for k in members] if sentences else (),
        )
        chosen.update(members[position] for position in selector.select(candidates, options))
    for k in set(range(len(kept))) - chosen:
        rows[kept[k]] = replace(rows[kept[k]], kept=False, reason=f"not {selector.name}")
    write_rows(output_dir / "rationales.parquet", Rationale, rows)
    return SelectRationalesStats(
        n_kept=len(chosen),
        n_candidates=len(kept),
        mean_tokens=round(sum(n_tokens[k] for k in chosen) / max(1, len(chosen)), 1),
    )


def _score_sentences(
    pairs: Sequence[tuple[Example, str]], assistant: Artifact, student: Artifact, ctx: RunContext
) -> list[list[SentenceScore]]:
    """Return the scores of every text's sentences, with one model in memory at a time."""
    by_model = []
    roles: Sequence[tuple[Artifact, Role]] = ((assistant, "assistant"), (student, "student"))
    for model, role in roles:
        local = load_artifact_model(model, ctx)
        by_model.append(
            lm.score_sentences(
                local, pairs, batch_size=ctx.runtime.get_batch_size(role), progress=ctx.progress,
                label=f"score sentences for the {role}",
            )
        )  # fmt: skip
        del local
        lm.free_device_memory()
    return [
        [SentenceScore(a, s) for a, s in zip(of_assistant, of_student, strict=True)]
        for of_assistant, of_student in zip(*by_model, strict=True)
    ]
