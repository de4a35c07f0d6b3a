"""The rows that travel between stages: one frozen dataclass per noun.

Rows are for the edges and for people; inside a stage the large columns are arrays. Every field is a
plain JSON value, so that a row is the same in Parquet, in JSONL and in memory.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Example:
    """One question of the pool or of the test set. `id` is unique within its data set."""

    id: str
    question: str
    answer: str | None = None  # the gold answer; None where the pool is unlabelled
    choices: tuple[str, ...] = ()  # the texts of the options, in the order shown
    domain: str = ""


@dataclass(frozen=True, slots=True)
class Score:
    """What the warm assistant thinks of one example; higher `difficulty` = harder."""

    id: str
    difficulty: float


@dataclass(frozen=True, slots=True)
class Signal:
    """What TA-in-the-Loop knows of one question: how many different answers the student's samples
    gave, and the assistant's confidence in the most frequent one, in [0, 1].
    """

    id: str
    n_distinct: int
    confidence: float


@dataclass(frozen=True, slots=True)
class Pick:
    """One place of a ranking over the whole pool. `chosen` marks the first B places.

    `difficulty` is rank-normalised to [0, 1]; `distance` in [0, 1] is the distance to the nearest
    earlier pick at the moment of picking (1 for the first), `nearest` that pick's id. Places after
    the first B follow by their score against the finished choice and carry no distance. `cluster`
    groups like questions: the strategy's own clusters, or those around the picks, numbered by rank.
    """

    id: str
    rank: int
    is_selected: bool
    score: float
    difficulty: float
    distance: float | None = None
    nearest: str | None = None
    cluster: int | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message. `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Completion:
    """One answered teacher call, in rank order. `state` is a row's state, never a reason to buy
    again.

    answered: finished by itself. truncated: cut by length. refused: the server would not answer
    this request (content filter, invalid request). unrecorded: a replayed teacher has nothing for
    it. `reasoning` is text the server returned apart
    from the answer. Costs are integer micro-dollars, tokens as the server billed them.
    """

    id: str
    rank: int
    state: str
    text: str
    reasoning: str
    n_prompt_tokens: int
    n_completion_tokens: int
    cost_microusd: int
    key: str


@dataclass(frozen=True, slots=True)
class Rationale:
    """A line of reasoning that ends in `answer`, kept for training or dropped with a `reason`.

    `source` is "teacher" or "assistant". `answer` is the answer that the text itself gives; the
    training target is decided by the stage that trains.
    """

    id: str
    text: str
    answer: str
    source: str
    kept: bool
    reason: str = ""
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class TrainingExample:
    """One prompt with what is learnt behind it: a rationale, an answer, or the one and then the
    other. `id` is the question's, `source` whose rationale it is.
    """

    id: str
    prompt: tuple[Message, ...]
    rationale: str | None
    answer: str | None
    source: str


@dataclass(frozen=True, slots=True)
class Prediction:
    """A model's greedy answer to one test question."""

    id: str
    text: str
    answer: str
    correct: bool


@dataclass(frozen=True, slots=True)
class StepCount:
    """The steps of one rationale, those that are missing included, and how many went wrong."""

    n_steps: int
    n_wrong: int


@dataclass(frozen=True, slots=True)
class TargetSpan:
    """A stretch of target text; `weight` multiplies the loss of each of its tokens."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class TrainingSequence:
    """One training sequence: a prompt that never counts in the loss, then weighted target spans.

    An empty prompt means plain text: the spans are the whole sequence and no chat template is used.
    """

    id: str
    prompt: tuple[Message, ...]
    spans: tuple[TargetSpan, ...]
