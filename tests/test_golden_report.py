"""Golden files of the report. After a wanted change: python tests/golden_files.py"""

import json

from golden_files import FOLDER, make_files


def parse(text):
    """Figures without their last digits, which depend on the version of numpy."""
    return json.loads(text, parse_float=lambda digits: round(float(digits), 9))


def test_metrics_json_equals_golden_file():
    assert parse(make_files()["metrics.json"]) == parse((FOLDER / "metrics.json").read_text())


def test_report_md_equals_golden_file():
    assert make_files()["report.md"] == (FOLDER / "report.md").read_text(encoding="utf-8")
