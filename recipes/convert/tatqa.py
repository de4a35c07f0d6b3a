"""TAT-QA (`tatqa_dataset_*.json`): questions over a table and its paragraphs.

The answers of a question with several are joined by `; `. A number gets the scale of its row. The
domain is the type of the answer.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from files import make_parser, parse_options, read_json_file, run_script, to_row, write_jsonl

from bridgekd.grading.answer_extraction import strip_markup
from bridgekd.grading.parse_number import parse_exact_number
from bridgekd.records import Example

SCALES = {"percent": "%", "thousand": " thousand", "million": " million", "billion": " billion"}
INSTRUCTION = (
    "Give every part of the answer with its scale (thousand, million, billion, %) if it has one."
)


def read_tatqa(path: Path) -> Iterator[Example]:
    """Yield the questions of a file in its order, each with its table and paragraphs."""
    for page in read_json_file(path):
        text = render_page(page)
        for row in page["questions"]:
            parts = row["answer"] if isinstance(row["answer"], list) else [row["answer"]]
            answer = "; ".join(append_scale(str(part).strip(), row["scale"]) for part in parts)
            question = f"{text}\nQuestion: {row['question']}\n{INSTRUCTION}"
            yield Example(row["uid"], question, answer, (), row["answer_type"])


def render_page(page: Mapping[str, Any]) -> str:
    """Return the table, one line per row, and the paragraphs in their order."""
    table = [" | ".join(cell.strip() for cell in line) for line in page["table"]["table"]]
    paragraphs = sorted(page["paragraphs"], key=lambda paragraph: paragraph["order"])
    return "\n".join([*table, *(paragraph["text"] for paragraph in paragraphs)])


def append_scale(part: str, scale: str) -> str:
    """Return a number with the scale of its row. Text, or a number with a scale, stays."""
    bare = strip_markup(part)
    if not scale or parse_exact_number(bare) is None or bare[-1] not in "0123456789":
        return part
    return part + SCALES[scale]


def main() -> None:
    options = parse_options(make_parser(str(__doc__)))
    write_jsonl(options.output, map(to_row, read_tatqa(options.file)))


if __name__ == "__main__":
    run_script(main)
