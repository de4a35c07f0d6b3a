"""Log-probabilities from a served model: the counterparts of `lm.score` and `lm.confidence`.

The one idea: prompt and continuation are sent as tokens and echoed with their log-probabilities, so
which of the numbers are the answer's is known by their places.
"""

import re
from collections.abc import Sequence
from itertools import chain
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from bridgekd import lm
from bridgekd.api_client.outcome import RequestOutcome
from bridgekd.errors import InputError
from bridgekd.inference_server.client import JsonBody, ServedModel, send_all, send_one
from bridgekd.inference_server.generate import PROBE
from bridgekd.io.row_files import append_jsonl, read_appended_jsonl
from bridgekd.progress import Progress, ignore_progress
from bridgekd.records import Example
from bridgekd.selection.difficulty.loss import MEASURE as LOSS
from bridgekd.selection.measure import DifficultyMeasure

# Temperature 1, because some servers scale the log-probabilities they tell. One token is asked for
# and left unread: some servers do not take 0.
ECHO_PARAMETERS = {"echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 1.0, "top_p": 1.0}
SAVE_EVERY = 64


def score_examples(
    server: ServedModel,
    examples: Sequence[Example],
    *,
    measure: DifficultyMeasure[Any] | None = LOSS,
    max_new_tokens: int = 32,
    batch_size: int | None,
    progress: Progress = ignore_progress,
    label: str = "score",
) -> "lm.ScoredExamples":
    """Difficulty of every example, in order, as `lm.score` defines it; embeddings are [n, 0].

    A measure of the model's certainty is over choices alone: over a free answer it needs the
    probability of every token of the vocabulary. Raises InputError for an example without choices.
    """
    difficulty = np.zeros(len(examples), dtype=np.float64)
    if measure is not None and measure.needs_gold:
        rows = server.tokenizer.build_gold_rows(examples)
        difficulty = -_means(rows, compute_logprobs(server, rows, progress=progress, label=label))
    elif measure is not None:
        difficulty = _score_choices(server, examples, measure, progress, label)
    nowhere = np.zeros((len(examples), 0), dtype=np.float32)
    return lm.ScoredExamples(difficulty, nowhere)


def estimate_confidence(
    server: ServedModel,
    pairs: Sequence[tuple[Example, str]],
    *,
    measure: Literal["p_true", "likelihood"],
    batch_size: int | None,
    progress: Progress = ignore_progress,
    label: str = "judge",
) -> NDArray[np.float64]:
    """The model's confidence in every text, [n] in [0, 1], as `lm.confidence` defines it."""
    sure = np.zeros(len(pairs), dtype=np.float64)
    said = [i for i, (_, text) in enumerate(pairs) if text.strip()]
    judged = [pairs[i] for i in said]
    if measure == "likelihood":
        rows = server.tokenizer.build_text_rows(judged)
        found = compute_logprobs(server, rows, progress=progress, label=label)
        sure[said] = np.exp(_means(rows, found))
        return sure
    true, false = (
        compute_logprobs(server, rows, progress=progress, label=f"{label}: {word}")
        for rows, word in zip(
            server.tokenizer.build_judge_rows(judged), ("true", "false"), strict=True
        )
    )
    sure[said] = expit(true - false)
    return sure


def compute_logprobs(
    server: ServedModel,
    rows: Sequence["lm.ScoringRow"],
    *,
    progress: Progress = ignore_progress,
    label: str,
) -> NDArray[np.float64]:
    """The log-probability in nats of every row's scored tokens together, [n].

    They are kept in the stage's folder as they come, under `label`, and not asked for again.
    Raises InputError where the server does not tell them.
    """
    file = server.workdir / f"{re.sub(r'[^a-z0-9]+', '-', label.lower())}.jsonl"
    known = dict(chain.from_iterable(read_appended_jsonl(file)))
    sums = np.array([known.get(i, np.nan) for i in range(len(rows))], dtype=np.float64)
    todo = [i for i in range(len(rows)) if i not in known]
    waiting: list[tuple[int, float]] = []
    if todo:
        _check_logprobs(server)
        progress(label, len(known), len(rows))

    def hand_over() -> None:
        append_jsonl(file, waiting)
        waiting.clear()
        progress(label, int(np.isfinite(sums).sum()), len(rows))

    def keep(place: int, answer: JsonBody) -> None:
        row = todo[place]
        found = _sum_logprobs(answer, len(rows[row].ids), rows[row].n_scored)
        if found is None:
            raise _build_error(server, f"none for {label} {row + 1} of {len(rows)}")
        sums[row] = found
        waiting.append((row, found))
        if len(waiting) >= SAVE_EVERY:
            hand_over()

    try:
        send_all(
            server,
            len(todo),
            lambda k: _build_echo_request(server, rows[todo[k]].ids),
            keep,
            what=label,
        )
    finally:
        if waiting:
            hand_over()
    return sums


def _score_choices(
    server: ServedModel,
    examples: Sequence[Example],
    measure: DifficultyMeasure[Any],
    progress: Progress,
    label: str,
) -> NDArray[np.float64]:
    score_choices = measure.score_choices
    open_ids = [example.id for example in examples if not example.choices]
    if score_choices is None or open_ids:
        where = f"of example {open_ids[0]}, which has no choices," if open_ids else ""
        raise InputError(
            f"The difficulty {measure.name} {where} needs the probability of every token, which no "
            "server returns. Use assistant.scoring_backend: transformers."
        )
    by_question = [
        question.build_rows() for question in server.tokenizer.build_choice_rows(examples)
    ]
    rows = list(chain.from_iterable(by_question))
    means = _means(rows, compute_logprobs(server, rows, progress=progress, label=label))
    ends = np.cumsum([len(own) for own in by_question])[:-1]
    return np.array([score_choices(own) for own in np.split(means, ends)])


def _means(rows: Sequence["lm.ScoringRow"], sums: NDArray[np.float64]) -> NDArray[np.float64]:
    return sums / np.array([row.n_scored for row in rows], dtype=np.float64)


def _build_echo_request(server: ServedModel, ids: Sequence[int]) -> JsonBody:
    return {"model": server.endpoint.model, "prompt": list(ids), **ECHO_PARAMETERS}


def _sum_logprobs(answer: JsonBody, n_ids: int, n_scored: int) -> float | None:
    """The sum over the last `n_scored` of the first `n_ids` tokens; None where it is not told."""
    told: Any = (answer["choices"][0].get("logprobs") or {}).get("token_logprobs")
    if not isinstance(told, list) or len(told) < n_ids:
        return None
    own = told[n_ids - n_scored : n_ids]
    if not all(isinstance(value, int | float) for value in own):
        return None
    return float(sum(own))


def _check_logprobs(server: ServedModel) -> None:
    ids = server.tokenizer.tokenize_prompts([PROBE])[0]
    if server.prompt_format != "tokens":
        raise _build_error(server, "it takes no tokens as a prompt")
    answer = send_one(server, _build_echo_request(server, ids))
    if isinstance(answer, RequestOutcome):
        raise _build_error(server, answer.reason)
    if _sum_logprobs(answer, len(ids), len(ids) - 1) is None:
        raise _build_error(server, "it answers without those of the prompt")


def _build_error(server: ServedModel, why: str) -> InputError:
    return InputError(
        f"the assistant's server at {server.endpoint.effective_base_url} gives no "
        "log-probabilities of a prompt's "
        f"tokens ({why}); use assistant.scoring_backend: transformers, or vLLM or SGLang"
    )
