"""The four trainings and what the assistant writes in between: local and free."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from bridgekd import lm
from bridgekd import settings as of
from bridgekd.config import Train, count_of
from bridgekd.core.draws import stream
from bridgekd.core.prompts import answer_prompt, answer_target, explain_prompt, shown_answer
from bridgekd.core.throughput import Throughput, WorkKind
from bridgekd.edges.data import load_instructions
from bridgekd.edges.rows import write_rows
from bridgekd.edges.sources import model_and_revision
from bridgekd.edges.store import UNFINISHED, Artifact, stage
from bridgekd.errors import BadInput
from bridgekd.lm.objectives import OBJECTIVES
from bridgekd.records import Example, Message, Rationale, Span, TrainRow
from bridgekd.stages.asking import asked, form_of
from bridgekd.stages.buying import checked, graded
from bridgekd.stages.filtering import by_confidence, by_consistency
from bridgekd.stages.judging import Asked, GreedyAccuracy, SmallLoss, Validate, held_out
from bridgekd.stages.lessons import lessons_of, train_row
from bridgekd.stages.live import Live
from bridgekd.stages.pool import read_answer_type, read_pool, read_validation
from bridgekd.stages.stats import CalibrationStats, GenerationStats, KeptStats, TrainStats
from bridgekd.stages.writing import samples, written
from bridgekd.variants import VariantRef, VariantSettings


class AnnotateStats(KeptStats, GenerationStats, CalibrationStats):
    n_written: int
    share_correct: float


class SampleRationalesStats(KeptStats, GenerationStats):
    n_written: int


@stage(version=2, kind=WorkKind.TRAINING, title="Assistant, warm-up")
def warm_up(out: Path, s: of.WarmUp, live: Live, pool: Artifact, model: Artifact) -> TrainStats:
    """The assistant after a few gold answers, drawn at random: it now knows the task's form."""
    rows = [_answer_row(e) for e in warmed_on(read_pool(pool), s)]
    return _train(
        out, model, rows, s.train, s, live,
        n_updates=s.train.n_updates(len(rows)),
        validate=_accuracy(pool, "answer", s, live.runtime.assistant_batch_size),
        label="warm up assistant",
    )  # fmt: skip


def warmed_on(pool: Sequence[Example], s: of.WarmUp) -> list[Example]:
    """The pool's examples that warm the assistant up, in their order."""
    labelled = [e for e in pool if e.answer is not None]
    if not labelled:
        raise BadInput(
            "The pool has no gold answer to warm an assistant up on. Set assistant.warm_up: 0, "
            "and select.difficulty to entropy, margin or n_distinct_answers."
        )
    n = max(1, min(len(labelled), count_of(s.share, len(pool))))
    drawn = stream(s.seed, "warm-up").permutation(len(labelled))[:n]
    return [labelled[i] for i in sorted(drawn.tolist())]


@stage(version=3, kind=WorkKind.TRAINING, title="Assistant, trained")
def train_assistant(
    out: Path,
    s: of.TrainModel,
    live: Live,
    pool: Artifact,
    model: Artifact,
    *rationales: Artifact,
) -> TrainStats:
    """The assistant after the teacher's rationales. An epoch is one pass over the kept ones."""
    rows = _rationale_rows(pool, rationales, s)
    return _train(
        out, model, rows, s.train, s, live,
        n_updates=s.train.n_updates(len(rows)),
        validate=_accuracy(pool, "explain", s, live.runtime.assistant_batch_size),
        label="train assistant",
    )  # fmt: skip


@stage(version=2, kind=WorkKind.GENERATION, title="The assistant's own rationales")
def annotate(
    out: Path, s: of.Annotate, live: Live, pool: Artifact, model: Artifact
) -> AnnotateStats:
    """The assistant's own rationale for every question of the pool.

    Finished batches are kept as they come, so that a killed run goes on behind them.
    """
    examples, answer_type = read_pool(pool), read_answer_type(pool)
    prompts = [explain_prompt(e) for e in examples]
    speed = Throughput()
    size: dict[str, Any] = {
        "max_new_tokens": s.max_new_tokens,
        "batch_size": live.runtime.assistant_batch_size,
        "throughput": speed,
    }  # fmt: skip
    with ExitStack() as opened:
        writer = judge = opened.enter_context(asked(model, s.backend, out, live))
        texts = written(out, writer, prompts, label="annotate the pool", live=live, **size)
        drawn: list[tuple[str, ...]] = []
        if s.samples:
            drawn = samples(out, writer, prompts, s.samples, seed=s.seed, live=live, **size)
        form, calibration = form_of(writer), None
        rows = [
            checked(e, text, answer_type, "assistant", s.keep)
            for e, text in zip(examples, texts, strict=True)
        ]
        if s.confidence is not None:
            if s.scoring != s.backend:
                opened.close()  # one of them at a time has the device
                judge = opened.enter_context(asked(model, s.scoring, out, live))
            rows, calibration = by_confidence(
                rows,
                examples,
                judge,
                s.confidence,
                batch_size=live.runtime.assistant_batch_size,
                answer_type=answer_type,
                live=live,
            )
    if s.samples:
        answers = [
            [answer_type.extract_answer(text, e.choices) for text in said]
            for e, said in zip(examples, drawn, strict=True)
        ]
        rows, calibration = by_consistency(rows, examples, answers, answer_type)
    write_rows(out / "rationales.parquet", Rationale, rows)
    right = sum(graded(e, t, answer_type).correct for e, t in zip(examples, texts, strict=True))
    return AnnotateStats(
        n_written=len(rows),
        n_kept=sum(r.kept for r in rows),
        share_correct=round(right / len(rows), 4),
        calibration=calibration,
        generation=speed.to_stats(),
        asked_with=form,
    )


@stage(version=1, kind=WorkKind.TRAINING, title="Student, instruction")
def instruct_student(
    out: Path, s: of.Instruct, live: Live, model: Artifact, instructions: Artifact
) -> TrainStats:
    """The student that follows a prompt: loss on the responses of a generic instruction set."""
    pairs = load_instructions(instructions.path)
    rows = [
        TrainRow(str(i), (Message("user", asked),), (Span(answered),))
        for i, (asked, answered) in enumerate(pairs)
    ]
    return _train(
        out, model, rows, s.train, s, live,
        n_updates=s.train.n_updates(len(rows)), label="instruct student",
    )  # fmt: skip


@stage(version=3, kind=WorkKind.TRAINING, title="Student, trained")
def train_student(
    out: Path,
    s: of.TrainModel,
    live: Live,
    pool: Artifact,
    model: Artifact,
    *rationales: Artifact,
) -> TrainStats:
    """The student after rationales. An epoch is the pool's size, however many rationales there are.

    So every arm gets the same number of optimiser updates, with early stopping on the same
    validation split.
    """
    rows = _rationale_rows(pool, rationales, s)
    asked: Asked = "answer" if s.form == "two_task" else "explain"
    return _train(
        out, model, rows, s.train, s, live,
        n_updates=s.train.n_updates(len(read_pool(pool))),
        validate=_accuracy(pool, asked, s, live.runtime.student_batch_size),
        label="train student",
    )  # fmt: skip


@stage(version=1, kind=WorkKind.TRAINING, title="Student, trained on answers")
def train_on_answers(
    out: Path,
    s: of.TrainOnAnswers,
    live: Live,
    pool: Artifact,
    model: Artifact,
    epoch_pool: Artifact | None = None,
) -> TrainStats:
    """The student after the pool's gold answers alone, with the updates of `train_student`: those
    of `epoch_pool`, where `pool` is a part of that.
    """
    examples = read_pool(pool)
    rows = [_answer_row(e, s.answer_weight) for e in examples if e.answer is not None]
    if not rows:
        raise BadInput(
            "the pool has no gold answer to train a student on; leave answers_only out of the arms"
        )
    return _train(
        out, model, rows, s.train, s, live,
        n_updates=s.train.n_updates(len(read_pool(epoch_pool) if epoch_pool else examples)),
        validate=_accuracy(pool, "answer", s, live.runtime.student_batch_size),
        label="train student on answers",
    )  # fmt: skip


@stage(version=2, kind=WorkKind.GENERATION, title="The assistant's sampled rationales")
def sample_rationales(
    out: Path, s: of.SampleRationales, live: Live, pool: Artifact, model: Artifact
) -> SampleRationalesStats:
    """Several rationales of the assistant a question, those with the right answer kept; one that
    says what an earlier one of its question said is dropped.
    """
    examples, answer_type = read_pool(pool), read_answer_type(pool)
    speed = Throughput()
    with asked(model, s.backend, out, live) as writer:
        drawn = samples(
            out, writer, [explain_prompt(e) for e in examples], s.samples,
            seed=s.seed, max_new_tokens=s.max_new_tokens, live=live, throughput=speed,
            batch_size=live.runtime.assistant_batch_size,
        )  # fmt: skip
        form = form_of(writer)
    rows = [
        row
        for example, texts in zip(examples, drawn, strict=True)
        for row in once(
            [checked(example, text, answer_type, "assistant", s.keep) for text in texts]
        )
    ]
    write_rows(out / "rationales.parquet", Rationale, rows)
    return SampleRationalesStats(
        n_written=len(rows),
        n_kept=sum(r.kept for r in rows),
        generation=speed.to_stats(),
        asked_with=form,
    )


@stage(version=1, kind=WorkKind.TRAINING, title="Student, trained with its mentor")
def train_with_mentor(
    out: Path,
    s: of.TrainWithMentor,
    live: Live,
    pool: Artifact,
    model: Artifact,
    reference: Artifact,
    *rationales: Artifact,
) -> TrainStats:
    """`train_student` with the mentor's distribution in the loss, where vocabularies agree."""
    name, revision = model_and_revision(reference)
    asked: Asked = "explain" if s.form == "joint" else "answer"
    return _train(
        out, model, _rationale_rows(pool, rationales, s), s.train, s, live,
        n_updates=s.train.n_updates(len(read_pool(pool))),
        validate=_accuracy(pool, asked, s, live.runtime.student_batch_size),
        label="train student with mentor",
        objective=OBJECTIVES.resolve(
            VariantRef.model_validate(
                {"name": "forward_kl", "kd_weight": s.share, "kd_temperature": s.temperature}
            )
        ),
        reference=lm.ReferenceSpec(name, revision),
    )  # fmt: skip


def once(said: Sequence[Rationale]) -> list[Rationale]:
    """Rationales of one question; of equal texts only the first is kept."""
    earlier: set[str] = set()
    rows = []
    for row in said:
        again = row.kept and row.text in earlier
        rows.append(replace(row, kept=False, reason="said before") if again else row)
        if row.kept:  # the same way to another answer is not the same
            earlier.add(row.text)
    return rows


def _train(
    out: Path,
    base: Artifact,
    rows: list[TrainRow],
    train: Train,
    s: of.WarmUp | of.TrainModel | of.TrainOnAnswers | of.Instruct,
    live: Live,
    *,
    n_updates: int,
    label: str,
    validate: Validate | None = None,
    objective: VariantSettings | None = None,
    reference: "lm.ReferenceSpec | None" = None,
) -> TrainStats:
    """One training of this stage; killed, it goes on from its last checkpoint."""
    name, revision = model_and_revision(base)
    if train.held_out is not None:
        kept, aside = held_out(rows, train.held_out, s.seed)
        if aside:  # of 0 % nothing is, and the validation split judges
            rows, validate = kept, SmallLoss(tuple(aside), train.max_length)
    log = lm.fine_tune(
        name, rows, out, train,
        n_updates=n_updates, seed=s.seed, device=live.device, revision=revision, lora=s.lora,
        validate=validate, progress=live.progress, label=label, runtime=live.runtime,
        unfinished=out / UNFINISHED, objective=objective, reference=reference,
    )  # fmt: skip
    speed = validate.speed.to_stats() if isinstance(validate, GreedyAccuracy) else None
    return TrainStats(**dict(log), generation=speed)


def _accuracy(
    pool: Artifact,
    asked: Asked,
    s: of.WarmUp | of.TrainModel | of.TrainOnAnswers,
    batch_size: int | None,
) -> GreedyAccuracy | None:
    """On the validation split; None where nothing was set aside."""
    examples = tuple(read_validation(pool))
    if not examples:
        return None
    return GreedyAccuracy(examples, read_answer_type(pool), asked, s.max_new_tokens, batch_size)


def _answer_row(example: Example, weight: float = 1.0) -> TrainRow:
    return TrainRow(
        example.id, answer_prompt(example), answer_target(shown_answer(example), weight)
    )


def _rationale_rows(
    pool: Artifact, rationales: Sequence[Artifact], s: of.TrainModel
) -> list[TrainRow]:
    return [train_row(k, s.answer_weight) for k in lessons_of(pool, rationales, s.form)]
