"""One row per chunk of a rationale: the model learns the chunk after the text before it."""

import re
from dataclasses import replace
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from bridgekd.grading.reasoning_steps import SENTENCE_END
from bridgekd.records import Example, Rationale, TrainingExample
from bridgekd.targets import TargetFormat
from bridgekd.targets.joint import build_joint
from bridgekd.variants import NoOptions

# A splitter is what stands between two of its units.
SPLITTERS = {"sentences": SENTENCE_END, "even": re.compile(r"\s+")}


class ChunksOptions(BaseModel):
    """n_chunks: chunks of a rationale, at most. splitter: a chunk is a number of `sentences`, where
    a line is one, too, or of words (`even`); the chunks of a rationale have about the same number.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    splitter: Literal["sentences", "even"] = "sentences"
    n_chunks: int = Field(4, ge=1, le=1000)


def build_chunks(
    example: Example, rationale: Rationale, answer: str, options: ChunksOptions
) -> list[TrainingExample]:
    """Return a row per chunk. Each has the complete target, and a loss on its chunk alone; the last
    chunk has the answer, too. So the losses of the rows sum to the loss of the joint row.

    Chunk-wise training of Skip-Thinking (arXiv 2505.18642). There `even` chunks are the start of a
    search for boundaries by loss, which is not in here; `sentences` are ours.
    """
    (row,) = build_joint(example, rationale, answer, NoOptions())
    cuts = find_cuts(rationale.text, SPLITTERS[options.splitter], options.n_chunks)
    ranges = zip([0, *cuts], [*cuts, None], strict=True)
    return [replace(row, loss_start=start, loss_end=end) for start, end in ranges]


def find_cuts(text: str, splitter: re.Pattern[str], n_chunks: int) -> list[int]:
    """Return where the second and each later chunk starts: with the blanks before its first word.

    Chunks are units between matches of the splitter. There are fewer chunks if there are fewer
    units.
    >>> find_cuts("Ann has 2. Ben has 3. So 5.", SPLITTERS["sentences"], 2)
    [10]
    """
    ends = [m.start() for m in splitter.finditer(text.rstrip()) if m.start()]
    n = min(n_chunks, len(ends) + 1)
    return [ends[k * (len(ends) + 1) // n - 1] for k in range(1, n)]


TARGET_FORMAT = TargetFormat(
    name="chunks",
    title="Chunks of the rationale",
    summary="One row per chunk: the text before the chunk is given and has no loss.",
    paper="arXiv 2505.18642",
    build=build_chunks,
    options=ChunksOptions,
)
