"""The stages, in the order of the data: each takes artifacts and gives one."""

from bridgekd.stages.buying import check, measure_teacher, query_teacher
from bridgekd.stages.live import Live
from bridgekd.stages.measuring import evaluate, predict
from bridgekd.stages.pilot import evaluate_pilot, hold_out, subsample
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
    "annotate",
    "check",
    "embed_pool",
    "evaluate",
    "evaluate_pilot",
    "hold_out",
    "instruct_student",
    "load_pool",
    "load_test",
    "measure_teacher",
    "predict",
    "query_teacher",
    "sample_rationales",
    "score_pool",
    "select",
    "subsample",
    "train_assistant",
    "train_on_answers",
    "train_student",
    "train_with_mentor",
    "warm_up",
    "weigh_student",
]
