"""The paid part: query_teacher, check, measure_teacher. The only stages that open the ledger."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from bridgekd import settings as of
from bridgekd.core.admission import Limits
from bridgekd.core.calls import TeacherRequest
from bridgekd.core.costs import microusd
from bridgekd.core.prompts import teacher_prompt
from bridgekd.core.throughput import WorkKind
from bridgekd.edges.rows import read_column, read_jsonl, read_rows, write_rows
from bridgekd.edges.store import Artifact, stage
from bridgekd.errors import BadInput
from bridgekd.grading.answer_extraction import split_answer
from bridgekd.grading.answer_type import AnswerType
from bridgekd.ledger.ledger import Ledger
from bridgekd.records import Completion, Example, Pick, Prediction, Rationale
from bridgekd.stages.asking import asked
from bridgekd.stages.filtering import by_confidence
from bridgekd.stages.live import Live
from bridgekd.stages.plan_requests import (
    choose_evaluation_questions,
    compute_limits,
    hide_answer,
    plan_evaluation_requests,
    plan_ranked_requests,
)
from bridgekd.stages.pool import by_id, read_answer_type, read_pool
from bridgekd.stages.stats import CalibrationStats, KeptStats, PurchaseStats
from bridgekd.teacher.buy import Purchase, api_key, buy
from bridgekd.teacher.orders import Accept
from bridgekd.teacher.transports import resolve_teacher

Keep = Literal["correct", "confident", "consistent", "all"]


class CheckStats(KeptStats, CalibrationStats):
    n_dropped: int


@stage(
    version=1,
    kind=WorkKind.PAID,
    title="The teacher's answers",
    plan_requests=plan_ranked_requests,
)
def query_teacher(
    out: Path, s: of.QueryTeacher, live: Live, pool: Artifact, ranking: Artifact, *shots: Artifact
) -> PurchaseStats:
    """Asks the teacher down the ranking until the first limit of the budget ends it."""
    everyone = read_pool(pool)
    limits = compute_limits(s.budget, len(everyone), s.part)
    order = read_column(ranking.path / "ranking.parquet", Pick, "id")
    if limits.queries is not None:  # one more, so that the limit is seen to be the end
        order = order[: limits.queries + 1]
    examples = by_id(everyone, order)
    wanted = [examples[id] for id in order]
    accept = _acceptance(examples, read_answer_type(pool), s.accept)
    bought = _buy(s.ask, wanted, shots, limits, purpose="train", live=live, accept=accept)
    rows, n_unrecorded = _told_apart(bought.completions, s.ask, wanted, live)
    write_rows(out / "completions.parquet", Completion, rows)
    return _stats(bought, n_unrecorded)


@stage(version=1, title="The teacher's rationales")
def check(
    out: Path,
    s: of.Check,
    live: Live,
    pool: Artifact,
    completions: Artifact,
    assistant: Artifact | None = None,
) -> CheckStats:
    """The teacher's answers as rationales, kept or dropped with a reason; all stay paid. Under
    `confident` the assistant weighs them.
    """
    answers = read_rows(completions.path / "completions.parquet", Completion)
    answer_type = read_answer_type(pool)
    examples = by_id(read_pool(pool), (c.id for c in answers))
    calibration = None
    rows = [
        checked(
            examples[c.id], c.text or c.reasoning, answer_type, "teacher", s.keep, state=c.state
        )
        for c in answers
    ]
    if s.confidence is not None and assistant is not None:
        answered = [examples[r.id] for r in rows]
        with asked(assistant, s.scoring, out, live) as judge:
            rows, calibration = by_confidence(
                rows,
                answered,
                judge,
                s.confidence,
                batch_size=live.runtime.assistant_batch_size,
                answer_type=answer_type,
                live=live,
            )
    write_rows(out / "rationales.parquet", Rationale, rows)
    n_kept = sum(r.kept for r in rows)
    return CheckStats(n_kept=n_kept, n_dropped=len(rows) - n_kept, calibration=calibration)


@stage(
    version=1,
    kind=WorkKind.PAID,
    title="The teacher on test questions",
    plan_requests=plan_evaluation_requests,
)
def measure_teacher(
    out: Path, s: of.MeasureTeacher, live: Live, pool: Artifact, test: Artifact, *shots: Artifact
) -> PurchaseStats:
    """The teacher on test questions drawn at random, paid apart from the budget."""
    rows = read_rows(test.path / "test.parquet", Example)
    asked = choose_evaluation_questions(s, rows)
    limits = Limits(queries=len(asked))
    bought = _buy(hide_answer(s.ask), asked, shots, limits, purpose="measure", live=live)
    examples, answer_type = {e.id: e for e in asked}, read_answer_type(pool)
    predictions = [graded(examples[c.id], c.text, answer_type) for c in bought.completions]
    write_rows(out / "predictions.parquet", Prediction, predictions)
    return _stats(bought)


def _acceptance(
    examples: Mapping[str, Example], answer_type: AnswerType, keep: Literal["correct", "all"] | None
) -> Accept | None:
    """Whether an answer will pass the check, by an example's id; None where nobody counts them."""
    if keep is None:
        return None
    return lambda id, state, text: (
        checked(examples[id], text, answer_type, "teacher", keep, state=state).kept
    )


def _told_apart(
    completions: Sequence[Completion], ask: of.Ask, wanted: Sequence[Example], live: Live
) -> tuple[Sequence[Completion], int | None]:
    """The completions of a replayed teacher, `unrecorded` where it had nothing, and their count."""
    answers = resolve_teacher(live.teacher).load_answers()
    if answers is None:
        return completions, None
    lacks = answers.find_missing(requests_for(ask, wanted, ()))
    rows = [replace(c, state="unrecorded") if c.id in lacks else c for c in completions]
    n = sum(row.state == "unrecorded" for row in rows)
    if n:
        live.note(
            f"{n:,} of the {len(rows):,} questions asked have no recording in "
            f"{answers.source}: their rows are unrecorded and cost a query, no money."
        )
    return rows, n


def graded(example: Example, text: str, answer_type: AnswerType) -> Prediction:
    """A model's text against the gold answer."""
    answer = answer_type.extract_answer(text, example.choices)
    right = answer_type.is_correct(answer, example.answer, example.choices)
    return Prediction(example.id, text, answer, right)


def checked(
    example: Example,
    text: str,
    answer_type: AnswerType,
    source: str,
    keep: Keep,
    *,
    state: str = "answered",
) -> Rationale:
    """A text as a rationale: dropped if cut, refused or empty, but under `all` if it has no answer
    (there, too, where no gold answer could take its place), and under `correct` if its answer is
    wrong.
    """
    rationale, _ = split_answer(text)
    answer = answer_type.extract_answer(text, example.choices)
    reason = ""
    if state != "answered":
        reason = state
    elif not rationale:
        reason = "no rationale"
    elif not answer and (keep != "all" or example.answer is None):
        reason = "no answer"
    elif keep == "correct" and example.answer is None:
        reason = "no gold answer to check against"
    elif keep == "correct" and not answer_type.is_correct(answer, example.answer, example.choices):
        gold = answer_type.canonicalize(example.answer or "", example.choices)
        reason = f"wrong answer: {answer}, not {gold}"
    return Rationale(example.id, rationale, answer, source, not reason, reason)


def read_shots(artifacts: Sequence[Artifact]) -> list[tuple[str, str, str]]:
    """The few-shot turns of teacher.prompt.examples."""
    shots = []
    for artifact in artifacts:
        for number, row in read_jsonl(artifact.path):
            missing = [k for k in ("question", "rationale", "answer") if not row.get(k)]
            if missing:
                raise BadInput(
                    f"{artifact.path} line {number}: no {missing[0]!r} in this example turn"
                )
            shots.append((str(row["question"]), str(row["rationale"]), str(row["answer"])))
    return shots


def requests_for(
    ask: of.Ask, wanted: Iterable[Example], shots: Sequence[Artifact]
) -> Iterator[TeacherRequest]:
    """One request per example, in rank order, each made when it is its turn."""
    turns, prompt = read_shots(shots), ask.prompt
    for rank, example in enumerate(wanted):
        yield TeacherRequest(
            id=example.id,
            rank=rank,
            messages=teacher_prompt(
                example,
                system=prompt.system,
                template=prompt.template,
                reveal_answer=prompt.reveal_answer,
                shots=turns,
            ),
            question=example.question,
        )


def _buy(
    ask: of.Ask,
    wanted: Sequence[Example],
    shots: Sequence[Artifact],
    limits: Limits,
    *,
    purpose: Literal["train", "measure"],
    live: Live,
    accept: Accept | None = None,
) -> Purchase:
    hard_stop = None if live.hard_stop_usd is None else microusd(live.hard_stop_usd)
    with Ledger(live.ledger, hard_stop, on_wait=live.note) as ledger:
        return buy(
            list(requests_for(ask, wanted, shots)),
            ledger,
            teacher=live.teacher,
            limits=limits,
            run=live.run,
            purpose=purpose,
            api_key=api_key(live.teacher),
            progress=live.progress,
            accept=accept,
            note=live.note,
        )


def _stats(bought: Purchase, n_unrecorded: int | None = None) -> PurchaseStats:
    return PurchaseStats(
        n_queries=len(bought.completions),
        spend_microusd=bought.charged_microusd,
        n_tokens=bought.charged_tokens,
        ended_by=bought.ended,
        n_calls_sent=bought.n_calls_sent,
        n_recalled=bought.n_recalled,
        newly_spent_microusd=bought.spent_microusd,
        n_unrecorded=n_unrecorded,
    )
