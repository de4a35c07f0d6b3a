"""Measures the speeds that a plan lacks: each model does a few seconds of the work that it would do
in a run, on the user's own questions.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from math import exp
from pathlib import Path

from scipy.special import ndtri

from bridgekd import lm
from bridgekd.core.prompts import (
    answer_prompt,
    answer_target,
    explain_prompt,
    explain_target,
    render_question,
    shown_answer,
)
from bridgekd.core.throughput import TokenCounts, WorkKind, WorkRate
from bridgekd.edges.sources import model_and_revision
from bridgekd.plans.model_speed import (
    LENGTH_LOG_SD,
    CalibrationSample,
    ModelSpeed,
    make_key,
    save_speeds,
)
from bridgekd.plans.stage_work import Work
from bridgekd.records import Message, Span, TrainRow
from bridgekd.selection.difficulty import MEASURES
from bridgekd.stages.live import Live

_NO_TOKENS = TokenCounts(per_character=0.0, explain_prompt=0.0, answer_prompt=0.0)


def measure_speed(work: Work, sample: CalibrationSample, machine: str, live: Live) -> ModelSpeed:
    """Return the speed of one kind of work with one model. Loads the model."""
    key = make_key(work, machine, live.runtime)
    name, revision = model_and_revision(work.base)
    batch_size = live.runtime.get_batch_size(work.role)
    if work.is_embedding:
        texts = [render_question(e) for e in sample.examples]
        rate = lm.measure_embedding(name, texts, live.device, batch_size)
        return ModelSpeed(key=key, rate=rate, load_s=0.0, tokens=_NO_TOKENS)
    started = time.monotonic()
    local = lm.load(name, device=live.device, revision=revision)
    load_s = time.monotonic() - started
    tokens = lm.count_tokens(local, sample.examples)
    reading, size = WorkRate(), 0
    if work.kind is WorkKind.TRAINING:
        rate = _measure_training(work, sample, tokens, local, live)
    elif work.kind is WorkKind.SCORING:
        rate = _measure_scoring(work, sample, tokens, local, batch_size)
    else:
        reading = lm.measure_reading(local, sample.examples)
        rate, size = lm.measure_decoding(local, sample.examples, work.max_new_tokens, batch_size)
    return ModelSpeed(
        key=key, rate=rate, reading=reading, load_s=load_s, tokens=tokens, batch_size=size
    )


def measure_missing(
    works: Sequence[Work], sample: CalibrationSample, machine: str, store: Path, live: Live
) -> None:
    """Measure the speeds of these works and save each of them in the store."""
    for n_done, work in enumerate(works):
        live.progress("measure speed", n_done, len(works))
        save_speeds(store, [measure_speed(work, sample, machine, live)])
    live.progress("measure speed", len(works), len(works))


def _measure_scoring(
    work: Work,
    sample: CalibrationSample,
    tokens: TokenCounts,
    local: "lm.LocalModel",
    batch_size: int | None,
) -> WorkRate:
    if work.text == "rationale":
        text = _write_text(sample, sample.rationale_tokens / tokens.per_character)
        pairs = [(example, text) for example in sample.examples]
        return lm.measure_confidence(local, pairs, batch_size)
    measure = None if work.difficulty is None else MEASURES.load(work.difficulty)
    if measure is not None and measure.score_answers is not None:
        measure = None  # the pass is for the embeddings alone
    return lm.measure_difficulty(local, sample.examples, measure, work.max_new_tokens, batch_size)


def _measure_training(
    work: Work,
    sample: CalibrationSample,
    tokens: TokenCounts,
    local: "lm.LocalModel",
    live: Live,
) -> WorkRate:
    assert work.train is not None
    rows = _build_rows(work, sample, tokens)
    lengths = [min(n, work.train.max_length) for n in lm.count_row_tokens(local, rows)]
    name, revision = model_and_revision(work.base)
    return lm.measure_training(
        name, rows, lengths, work.train, device=live.device, revision=revision,
        lora=work.lora, runtime=live.runtime,
    )  # fmt: skip


def _build_rows(work: Work, sample: CalibrationSample, tokens: TokenCounts) -> list[TrainRow]:
    """Training sequences of the kind that this work trains on."""
    if work.text == "instruction":
        return [
            TrainRow(str(i), (Message("user", prompt),), (Span(response),))
            for i, (prompt, response) in enumerate(sample.instructions)
        ]
    rows, n = [], len(sample.examples)
    for i, example in enumerate(sample.examples):
        answer = shown_answer(example if example.answer else replace(example, answer="unknown"))
        if work.text == "answer":
            rows.append(TrainRow(example.id, answer_prompt(example), answer_target(answer)))
            continue
        factor = exp(LENGTH_LOG_SD * ndtri((i + 0.5) / n) - LENGTH_LOG_SD**2 / 2)
        text = _write_text(sample, factor * sample.rationale_tokens / tokens.per_character)
        target = explain_target(text, answer, 1.0)
        rows.append(TrainRow(example.id, explain_prompt(example), target))
    return rows


def _write_text(sample: CalibrationSample, n_characters: float) -> str:
    """Text of the questions, of this length."""
    text = " ".join(render_question(e) for e in sample.examples)
    n = max(1, int(n_characters))
    return (text * (n // max(1, len(text)) + 1))[:n]
