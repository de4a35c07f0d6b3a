"""The four trainings and what the assistant writes in between: local and free."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bridgekd import lm
from bridgekd import settings as of
from bridgekd.config import Train, count_of
from bridgekd.core.draws import stream
from bridgekd.core.grading import read_answer
from bridgekd.core.prompts import answer_prompt, answer_target, explain_prompt, shown_answer
from bridgekd.core.throughput import Throughput
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
from bridgekd.stages.pool import answer_kind, read_pool, read_validation
from bridgekd.stages.writing import samples, written
from bridgekd.variants import VariantRef, VariantSettings


@stage(version=2)
def warm_up(
    out: Path, s: of.WarmUp, pool: Artifact, base: Artifact, *, live: Live
) -> dict[str, Any]:
    """The assistant after a few gold answers, drawn at random: it now knows the task's form."""
    rows = [_answer_row(e) for e in warmed_on(read_pool(pool), s)]
    return _train(
        out, base, rows, s.train, s, live,
        n_updates=s.train.n_updates(len(rows)),
        validate=_accuracy(pool, "answer", s), label="warm up assistant",
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


@stage(version=3)
def train_assistant(
    out: Path,
    s: of.TrainModel,
    pool: Artifact,
    assistant: Artifact,
    *rationales: Artifact,
    live: Live,
) -> dict[str, Any]:
    """The assistant after the teacher's rationales. An epoch is one pass over the kept ones."""
    rows = _rationale_rows(pool, rationales, s)
    return _train(
        out, assistant, rows, s.train, s, live,
        n_updates=s.train.n_updates(len(rows)),
        validate=_accuracy(pool, "explain", s), label="train assistant",
    )  # fmt: skip


@stage(version=2)
def annotate(
    out: Path, s: of.Annotate, pool: Artifact, assistant: Artifact, *, live: Live
) -> dict[str, Any]:
    """The assistant's own rationale for every question of the pool.

    Finished batches are kept as they come, so that a killed run goes on behind them.
    """
    examples, kind = read_pool(pool), answer_kind(pool)
    prompts = [explain_prompt(e) for e in examples]
    speed = Throughput()
    size: dict[str, Any] = {
        "max_new_tokens": s.max_new_tokens, "batch_size": s.batch_size, "throughput": speed,
    }  # fmt: skip
    with ExitStack() as opened:
        writer = judge = opened.enter_context(asked(assistant, s.backend, out, live))
        texts = written(out, writer, prompts, label="annotate the pool", live=live, **size)
        drawn: list[tuple[str, ...]] = []
        if s.samples:
            drawn = samples(out, writer, prompts, s.samples, seed=s.seed, live=live, **size)
        facts: dict[str, Any] = form_of(writer)
        rows = [
            checked(e, text, kind, "assistant", s.keep)
            for e, text in zip(examples, texts, strict=True)
        ]
        if s.confidence is not None:
            if s.scoring != s.backend:
                opened.close()  # one of them at a time has the device
                judge = opened.enter_context(asked(assistant, s.scoring, out, live))
            rows, told = by_confidence(
                rows, examples, judge, s.confidence, batch_size=s.batch_size, kind=kind, live=live
            )
            facts |= told
    if s.samples:
        answers = [
            [read_answer(text, kind, e.choices) for text in said]
            for e, said in zip(examples, drawn, strict=True)
        ]
        rows, told = by_consistency(rows, examples, answers, kind)
        facts |= told
    write_rows(out / "rationales.parquet", Rationale, rows)
    right = sum(graded(e, t, kind).correct for e, t in zip(examples, texts, strict=True))
    return {
        "n_written": len(rows),
        "n_kept": sum(r.kept for r in rows),
        "share_correct": round(right / len(rows), 4),
        **facts,
        **speed.facts(),
    }


@stage(version=1)
def instruct_student(
    out: Path, s: of.Instruct, base: Artifact, instructions: Artifact, *, live: Live
) -> dict[str, Any]:
    """The student that follows a prompt: loss on the responses of a generic instruction set."""
    pairs = load_instructions(instructions.path)
    rows = [
        TrainRow(str(i), (Message("user", asked),), (Span(answered),))
        for i, (asked, answered) in enumerate(pairs)
    ]
    return _train(
        out, base, rows, s.train, s, live,
        n_updates=s.train.n_updates(len(rows)), label="instruct student",
    )  # fmt: skip


@stage(version=3)
def train_student(
    out: Path,
    s: of.TrainModel,
    pool: Artifact,
    student: Artifact,
    *rationales: Artifact,
    live: Live,
) -> dict[str, Any]:
    """The student after rationales. An epoch is the pool's size, however many rationales there are.

    So every arm gets the same number of optimiser updates, with early stopping on the same
    validation split.
    """
    rows = _rationale_rows(pool, rationales, s)
    asked: Asked = "answer" if s.form == "two_task" else "explain"
    return _train(
        out, student, rows, s.train, s, live,
        n_updates=s.train.n_updates(len(read_pool(pool))),
        validate=_accuracy(pool, asked, s), label="train student",
    )  # fmt: skip


@stage(version=1)
def train_on_answers(
    out: Path,
    s: of.TrainOnAnswers,
    pool: Artifact,
    student: Artifact,
    *whole: Artifact,
    live: Live,
) -> dict[str, Any]:
    """The student after the pool's gold answers alone, with the updates of `train_student`: those
    of the whole pool, where `pool` is a part of one.
    """
    examples = read_pool(pool)
    rows = [_answer_row(e, s.answer_weight) for e in examples if e.answer is not None]
    if not rows:
        raise BadInput(
            "the pool has no gold answer to train a student on; leave answers_only out of the arms"
        )
    return _train(
        out, student, rows, s.train, s, live,
        n_updates=s.train.n_updates(len(read_pool(whole[0]) if whole else examples)),
        validate=_accuracy(pool, "answer", s), label="train student on answers",
    )  # fmt: skip


@stage(version=2)
def sample_rationales(
    out: Path, s: of.SampleRationales, pool: Artifact, assistant: Artifact, *, live: Live
) -> dict[str, Any]:
    """Several rationales of the assistant a question, those with the right answer kept; one that
    says what an earlier one of its question said is dropped.
    """
    examples, kind = read_pool(pool), answer_kind(pool)
    speed = Throughput()
    with asked(assistant, s.backend, out, live) as writer:
        drawn = samples(
            out, writer, [explain_prompt(e) for e in examples], s.samples,
            seed=s.seed, max_new_tokens=s.max_new_tokens, batch_size=s.batch_size, live=live,
            throughput=speed,
        )  # fmt: skip
        facts: dict[str, Any] = form_of(writer) | speed.facts()
    rows = [
        row
        for example, texts in zip(examples, drawn, strict=True)
        for row in once([checked(example, text, kind, "assistant", s.keep) for text in texts])
    ]
    write_rows(out / "rationales.parquet", Rationale, rows)
    return {"n_written": len(rows), "n_kept": sum(r.kept for r in rows)} | facts


@stage(version=1)
def train_with_mentor(
    out: Path,
    s: of.TrainWithMentor,
    pool: Artifact,
    student: Artifact,
    mentor: Artifact,
    *rationales: Artifact,
    live: Live,
) -> dict[str, Any]:
    """`train_student` with the mentor's distribution in the loss, where vocabularies agree."""
    name, revision = model_and_revision(mentor)
    asked: Asked = "explain" if s.form == "joint" else "answer"
    return _train(
        out, student, _rationale_rows(pool, rationales, s), s.train, s, live,
        n_updates=s.train.n_updates(len(read_pool(pool))),
        validate=_accuracy(pool, asked, s), label="train student with mentor",
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
) -> dict[str, Any]:
    """One training of this stage; killed, it goes on from its last checkpoint."""
    name, revision = model_and_revision(base)
    if train.held_out is not None:
        kept, aside = held_out(rows, train.held_out, s.seed)
        if aside:  # of 0 % nothing is, and the validation split judges
            rows, validate = kept, SmallLoss(tuple(aside), train.max_length)
    log = lm.fine_tune(
        name, rows, out, train,
        n_updates=n_updates, seed=s.seed, device=live.device, revision=revision, lora=s.lora,
        validate=validate, progress=live.progress, label=label, machine=live.machine,
        unfinished=out / UNFINISHED, objective=objective, reference=reference,
    )  # fmt: skip
    return asdict(log) | (validate.speed.facts() if isinstance(validate, GreedyAccuracy) else {})


def _accuracy(
    pool: Artifact, asked: Asked, s: of.WarmUp | of.TrainModel | of.TrainOnAnswers
) -> GreedyAccuracy | None:
    """On the validation split; None where nothing was set aside."""
    examples = tuple(read_validation(pool))
    if not examples:
        return None
    return GreedyAccuracy(examples, answer_kind(pool), asked, s.max_new_tokens, s.batch_size)


def _answer_row(example: Example, weight: float = 1.0) -> TrainRow:
    return TrainRow(
        example.id, answer_prompt(example), answer_target(shown_answer(example), weight)
    )


def _rationale_rows(
    pool: Artifact, rationales: Sequence[Artifact], s: of.TrainModel
) -> list[TrainRow]:
    return [train_row(k, s.answer_weight) for k in lessons_of(pool, rationales, s.form)]
