"""The scripts of recipes/convert, for the benchmarks of this folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes" / "convert"))

from files import read_json_file, sample_questions, to_row, write_jsonl
from mentor_kd import read_mentor_kd
from palm540b_dss import read_palm540b_dss
from recorded_answers import RecordedRow, iter_recordings, list_examples, read_recorded_rows
from self_instruct import read_self_instruct

__all__ = ["RecordedRow", "iter_recordings", "list_examples", "read_json_file", "read_mentor_kd"]
__all__ += ["read_recorded_rows"]
__all__ += ["read_palm540b_dss", "read_self_instruct", "sample_questions", "to_row", "write_jsonl"]
