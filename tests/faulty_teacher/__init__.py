"""A teacher server that fails on purpose and counts what it bills; see `server.py`."""

from faulty_teacher.answers import Faults
from faulty_teacher.batch_api import BatchFaults
from faulty_teacher.billing import BATCH_PRICE, SANDBOX_PRICE
from faulty_teacher.rate_limit import RateLimitSpec
from faulty_teacher.server import FaultyTeacherServer, run_teacher_server

__all__ = [
    "BATCH_PRICE",
    "SANDBOX_PRICE",
    "BatchFaults",
    "Faults",
    "FaultyTeacherServer",
    "RateLimitSpec",
    "run_teacher_server",
]  # fmt: skip
