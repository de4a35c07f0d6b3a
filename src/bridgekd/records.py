"""The rows that stages exchange: one frozen dataclass per noun.

Every field is a JSON value, so a row is the same in Parquet, in JSONL and in memory. Inside a stage
large columns are arrays.
"""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Example:
    """One question of the pool or of the test set. `id` is unique in its data set."""

    id: str
    question: str
    answer: str | None = None  # the gold answer; None in an unlabeled pool
    choices: tuple[str, ...] = ()  # the texts of a multiple-choice question, in their order
    domain: str = ""
    alternatives: tuple[str, ...] = ()  # other gold answers, any of which is correct


@dataclass(frozen=True, slots=True)
class Score:
    """The difficulty of one question for the warm assistant; higher is harder."""

    id: str
    difficulty: float


@dataclass(frozen=True, slots=True)
class Signal:
    """The signals of TA-in-the-Loop for one question.

    n_distinct: the number of different answers in the student's samples. confidence: that of the
    assistant in the most frequent answer, in [0, 1].
    """

    id: str
    n_distinct: int
    confidence: float


@dataclass(frozen=True, slots=True)
class Pick:
    """One question in a ranking of the full pool. `is_selected` marks the first B ranks.

    difficulty: rank-normalized to [0, 1]. distance: to the nearest earlier pick, in [0, 1]; 1 for
    the first pick. nearest: the id of that earlier pick. Questions after the first B are sorted by
    their score against the complete selection and have no distance. cluster: a group of similar
    questions, from the strategy or around the picks, numbered by rank.
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
    """One finished request to the teacher, in rank order. No `state` is a reason to buy it again.

    state: `answered`; `truncated` (reached the length limit); `refused` (content filter, invalid
    request); or `unrecorded` (a recording has no answer). reasoning: text that the server returned
    separately from the answer. Token counts are those that the server billed.
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
    """A reasoning text, kept for training or dropped with a `reason`.

    `source` is "teacher" or "assistant". `answer` is extracted from the text. It is not always the
    training target: the stage that trains selects that.
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
    """A prompt and its target: a rationale, an answer, or both in this order.

    `id` is that of the question, `source` that of the rationale. Only the characters of the target
    from `loss_start` to `loss_end` have a loss; None: to the end of the turn.
    """

    id: str
    prompt: tuple[Message, ...]
    rationale: str | None
    answer: str | None
    source: str
    loss_start: int = 0
    loss_end: int | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """The greedy answer of a model to one test question. `answer` is "" if the text has none.

    n_tokens: of the text, as the model's tokenizer or the teacher's bill counts them. is_cut_off:
    whether the text reached its maximum of tokens before its end.
    """

    id: str
    text: str
    answer: str
    correct: bool
    n_tokens: int = 0
    is_cut_off: bool = False


@dataclass(frozen=True, slots=True)
class SampledAnswer:
    """One sampled answer of a model to a test question. `sample` counts from 0."""

    id: str
    sample: int
    text: str
    answer: str
    correct: bool


@dataclass(frozen=True, slots=True)
class StepCount:
    """The number of reasoning steps in a rationale, with the missing ones, and of wrong steps."""

    n_steps: int
    n_wrong: int


@dataclass(frozen=True, slots=True)
class TargetSpan:
    """A part of a target text; `weight` multiplies the loss of each of its tokens."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class TargetLogprobs:
    """What a reference model gives a target: the log-probability of each of its tokens in nats, and
    the byte of the text where the token ends. The last token ends the target and counts as one
    byte. `id` is that of the question; `key` names prompt and target.
    """

    id: str
    key: str
    ends: tuple[int, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class TrainingSequence:
    """A training sequence: a prompt, which has no loss, and then weighted target spans.

    `id` is that of the question. Without a prompt the spans are plain text, and no chat template is
    applied. reference_prompt: what a reference model reads instead; None: the prompt. With
    `mean_weight` the loss is this times the mean over the target tokens: each has the weight of its
    span times mean_weight / number of target tokens. A sequence with negative weights is unlearned.
    Sequences of one `group` are in the same update; "" is no group. Only the characters of the
    target from `loss_start` to `loss_end` have a loss; None: to the end of the turn.
    target_logprobs: of a reference model that is not loaded.
    """

    id: str
    prompt: tuple[Message, ...]
    spans: tuple[TargetSpan, ...]
    reference_prompt: tuple[Message, ...] | None = None
    mean_weight: float | None = None
    group: str = ""
    loss_start: int = 0
    loss_end: int | None = None
    target_logprobs: TargetLogprobs | None = None

    @property
    def text(self) -> str:
        """The text of the target."""
        return "".join(span.text for span in self.spans)

    @property
    def key(self) -> str:
        """A hash of what a reference model reads: its prompt and the texts of the spans."""
        prompt = self.reference_prompt or self.prompt
        read = ([(m.role, m.content) for m in prompt], [span.text for span in self.spans])
        return hashlib.blake2b(repr(read).encode(), digest_size=16).hexdigest()
