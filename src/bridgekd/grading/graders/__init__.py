"""Graders, one file for each type of answer. A file ends in `GRADER = Grader(...)`."""

from bridgekd.grading.grader import Grader
from bridgekd.variants import Registry

GRADERS = Registry("answer type", __name__, "GRADER", Grader)
