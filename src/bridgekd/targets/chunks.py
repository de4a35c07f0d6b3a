"""One row per chunk of a rationale: the model learns the chunk after the text before it."""

import re
from dataclasses import replace
from itertools import pairwise

from bridgekd.grading.reasoning_steps import SENTENCE_END
from bridgekd.recipe import ChunkOptions
from bridgekd.records import Example, Rationale, TrainingExample
from bridgekd.targets import TargetFormat
from bridgekd.targets.joint import build_joint
from bridgekd.variants import NoOptions

# A splitter is what stands between two of its units.
SPLITTERS = {"sentences": SENTENCE_END, "even": re.compile(r"\s+")}


def build_chunks(
    example: Example, rationale: Rationale, answer: str, options: ChunkOptions
) -> list[TrainingExample]:
    """Return a row per chunk. Each has the complete target, and a loss on its chunk alone; the last
    chunk has the answer, too. So the losses of the rows sum to the loss of the joint row.

    Chunk-wise training of Skip-Thinking (arXiv 2505.18642). There `even` chunks are the start of a
    search for boundaries by loss, which is not in here; `sentences` are ours.
    """
    (row,) = build_joint(example, rationale, answer, NoOptions())
    cuts = find_cuts(rationale.text, options)
    ranges = zip([0, *cuts], [*cuts, None], strict=True)
    return [replace(row, loss_start=start, loss_end=end) for start, end in ranges]


def find_cuts(text: str, options: ChunkOptions) -> list[int]:
    """Return where the second and each later chunk starts: with the blanks before its first word.

    There are fewer chunks if there are fewer sentences or words.
    >>> find_cuts("Ann has 2. Ben has 3. So 5.", ChunkOptions(n_chunks=2))
    [10]
    """
    ends = [m.start() for m in SPLITTERS[options.splitter].finditer(text.rstrip()) if m.start()]
    n = min(options.n_chunks, len(ends) + 1)
    return [ends[k * (len(ends) + 1) // n - 1] for k in range(1, n)]


def split_chunks(text: str, options: ChunkOptions) -> list[str]:
    """Return the chunks of a text, which they are when joined."""
    return [text[a:b] for a, b in pairwise([0, *find_cuts(text, options), len(text)])]


TARGET_FORMAT = TargetFormat(
    name="chunks",
    title="Chunks of the rationale",
    summary="One row per chunk: the text before the chunk is given and has no loss.",
    paper="arXiv 2505.18642",
    build=build_chunks,
    options=ChunkOptions,
)
