"""Rationales without the chunks that the assistant can do without."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bridgekd.grading.answer_type import AnswerType
from bridgekd.grading.grade import grade_answer
from bridgekd.io.artifact_store import Artifact, stage
from bridgekd.io.read_pool import index_by_id, read_answer_type, read_pool
from bridgekd.io.row_files import write_rows
from bridgekd.prompts import render_cot_prompt
from bridgekd.recipe import ChunkOptions, Recipe, TokenLimit
from bridgekd.records import Example, Message, Rationale
from bridgekd.stages.model_backend import BackendSettings, ResumableGenerator, open_backend
from bridgekd.stages.run_context import RunContext
from bridgekd.stages.stats import GenerationStats, KeptStats
from bridgekd.stages.token_limit import resolve_token_limit
from bridgekd.stages.training_examples import read_rationales
from bridgekd.targets.chunks import split_chunks
from bridgekd.throughput import WorkKind

_LINE_END = re.compile(r"(?:\s*\n)?")


class ShortenSettings(BackendSettings):
    chunks: ChunkOptions
    max_new_tokens: TokenLimit


class ShortenStats(KeptStats, GenerationStats):
    """n_chunks: of the kept rationales, before. n_skipped: those that are left out."""

    n_chunks: int
    n_skipped: int


def build_shorten_settings(recipe: Recipe) -> ShortenSettings | None:
    """Return what shorter rationales depend on; None if they are not shortened."""
    chunks, assistant = recipe.student.shorten, recipe.assistant
    if chunks is None:
        return None
    return ShortenSettings(
        chunks=chunks, max_new_tokens=assistant.max_new_tokens, backend=assistant.generation_backend
    )


@stage(version=1, kind=WorkKind.GENERATION, title="Shorter rationales")
def shorten_rationales(
    output_dir: Path,
    settings: ShortenSettings,
    ctx: RunContext,
    pool: Artifact,
    rationales: Sequence[Artifact],
    model: Artifact,
) -> ShortenStats:
    """Write the rationales; in the kept ones, middle chunks are left out.

    Each middle chunk is left out in turn. `model` continues after the last of the other middle
    chunks. If its answer is still right, the chunk stays out. Source: Skip-Thinking (arXiv
    2505.18642), where the trained student answers. That the assistant answers, which saves a
    training, and that a chunk is tested without those already left out, are our readings.
    """
    rows = read_rationales(rationales)
    kept = [i for i, row in enumerate(rows) if row.kept]
    by_id = index_by_id(read_pool(pool), (rows[i].id for i in kept))
    answer_type = read_answer_type(pool)
    chunks = {i: split_chunks(rows[i].text, settings.chunks) for i in kept}
    is_needed = {i: [True] * len(chunks[i]) for i in kept}
    limit = resolve_token_limit(settings.max_new_tokens, model)
    generator = ResumableGenerator(output_dir, ctx, "assistant", limit)
    with open_backend(model, settings.backend, output_dir, ctx) as backend:
        for k in range(1, settings.chunks.n_chunks - 1):
            tested = [i for i in kept if k < len(chunks[i]) - 1]
            for i in tested:
                is_needed[i][k] = False
            prompts = [_start_answer(by_id[rows[i].id], chunks[i], is_needed[i]) for i in tested]
            texts = generator.generate(backend, prompts, f"leave out chunk {k + 1}", f"texts-{k}")
            for i, text in zip(tested, texts, strict=True):
                is_needed[i][k] = not _is_right(by_id[rows[i].id], rows[i], text, answer_type)
    for i in kept:
        rows[i] = replace(rows[i], text=_join(chunks[i], is_needed[i]))
    write_rows(output_dir / "rationales.parquet", Rationale, rows)
    return ShortenStats(
        n_kept=len(kept),
        n_chunks=sum(map(len, chunks.values())),
        n_skipped=sum(needed.count(False) for needed in is_needed.values()),
        generation=generator.report_speed(),
        prompt_format=backend.prompt_format,
    )


def _start_answer(
    example: Example, chunks: Sequence[str], is_needed: Sequence[bool]
) -> tuple[Message, ...]:
    """Return a prompt whose answer has begun with the needed chunks before the last one."""
    # A tokenizer may have one token for a period and the line break after it.
    line_end = _LINE_END.match(chunks[-1])
    begun = _join(chunks[:-1], is_needed[:-1]) + (line_end[0] if line_end else "")
    return (*render_cot_prompt(example), Message("assistant", begun))


def _join(chunks: Sequence[str], is_needed: Sequence[bool]) -> str:
    return "".join(chunk for chunk, needed in zip(chunks, is_needed, strict=True) if needed)


def _is_right(example: Example, rationale: Rationale, text: str, answer_type: AnswerType) -> bool:
    """Return whether a text has the gold answer; without one, the answer of the rationale."""
    graded = grade_answer(example, text, answer_type)
    return graded.correct if example.answer is not None else graded.answer == rationale.answer
