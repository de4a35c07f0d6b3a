"""Data sets whose published files no field map reads: as questions with answers.

Contexts and tables become part of the question, as every model sees the question alone. Each row
has the data set's own id where there is one.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from bridgekd.core.amounts import whole_number
from bridgekd.core.signs import plain
from bridgekd.edges.recorded import read_json
from bridgekd.errors import BadInput
from bridgekd.records import Example

PublishedFormat = Literal["pubmedqa", "tatqa", "self-instruct"]
DECISIONS = ("yes", "no", "maybe")
_SCALES = {"percent": "%", "thousand": " thousand", "million": " million", "billion": " billion"}
_TATQA = (
    "Give every part of the answer with its scale (thousand, million, billion, %) if it has one."
)


def read_published(path: Path, written_as: Literal["pubmedqa", "tatqa"]) -> Iterator[Example]:
    """The questions of a file, in its order. BadInput where it is not in that format."""
    tree = read_json(path)
    try:
        yield from _pubmedqa(tree) if written_as == "pubmedqa" else _tatqa(tree)
    except (KeyError, TypeError, AttributeError) as exc:
        raise BadInput(
            f"{path} is not in the format {written_as} ({exc!r}); name another --format"
        ) from exc


def instructions_of(rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    """Self-Instruct's seed tasks as instruction, input and output rows, one an instance."""
    for number, row in enumerate(rows, start=1):
        try:
            for one in row["instances"]:
                yield {"instruction": row["instruction"]} | {k: one[k] for k in ("input", "output")}
        except (KeyError, TypeError) as exc:
            raise BadInput(
                f"row {number} is no task of self-instruct ({exc!r}); name another --format"
            ) from exc


def _pubmedqa(tree: Mapping[str, Any]) -> Iterator[Example]:
    for id, row in tree.items():
        question = "\n".join([*row["CONTEXTS"], f"Question: {row['QUESTION']}"])
        yield Example(id, question, row["final_decision"], DECISIONS)


def _tatqa(tree: Iterable[Mapping[str, Any]]) -> Iterator[Example]:
    """Answers of several parts have `; ` between; `domain` is the type of answer."""
    for page in tree:
        table = [" | ".join(cell.strip() for cell in line) for line in page["table"]["table"]]
        paragraphs = sorted(page["paragraphs"], key=lambda p: p["order"])
        page_text = "\n".join([*table, *(p["text"] for p in paragraphs)])
        for row in page["questions"]:
            parts = row["answer"] if isinstance(row["answer"], list) else [row["answer"]]
            answer = "; ".join(_scaled(str(part).strip(), row["scale"]) for part in parts)
            question = f"{page_text}\nQuestion: {row['question']}\n{_TATQA}"
            yield Example(row["uid"], question, answer, (), row["answer_type"])


def _scaled(part: str, scale: str) -> str:
    """A number with the scale of its row; what is no number, or has a scale itself, stays."""
    bare = plain(part)
    if not scale or whole_number(bare) is None or bare[-1] not in "0123456789":
        return part
    return part + _SCALES[scale]
