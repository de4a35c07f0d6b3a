"""The stages, in the order of the data: each takes artifacts and gives one."""

from bridgekd.stages.buying import check, measure_teacher, query_teacher
from bridgekd.stages.live import Live
from bridgekd.stages.measuring import evaluate, predict, report
from bridgekd.stages.piloting import advise, set_aside, thin
from bridgekd.stages.pool import load_pool, load_test, select
from bridgekd.stages.scoring import embed_pool, score_pool, weigh_student
from bridgekd.stages.training import (
    annotate,
    instruct_student,
    sample_rationales,
    train_assistant,
    train_on_answers,
    train_student,
    train_with_mentor,
    warm_up,
)

__all__ = [
    "Live",
    "advise",
    "annotate",
    "check",
    "embed_pool",
    "evaluate",
    "instruct_student",
    "load_pool",
    "load_test",
    "measure_teacher",
    "predict",
    "query_teacher",
    "report",
    "sample_rationales",
    "score_pool",
    "select",
    "set_aside",
    "thin",
    "train_assistant",
    "train_on_answers",
    "train_student",
    "train_with_mentor",
    "warm_up",
    "weigh_student",
]
