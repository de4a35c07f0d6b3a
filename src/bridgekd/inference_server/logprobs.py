"""Log-probabilities from a served model: the counterpart of `lm.score` and `lm.confidence`.

The one idea: prompt and continuation are sent as tokens and echoed with their log-probabilities, so
the positions show which numbers belong to the answer.
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
from bridgekd.records import Example, TargetLogprobs, TrainingSequence
from bridgekd.selection.difficulty.loss import MEASURE as LOSS
from bridgekd.selection.measure import DifficultyMeasure

# Temperature 1, because some servers scale the log-probabilities that they return. One token is
# requested and not read: some servers do not accept 0.
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
    """Return the difficulty of every example, as `lm.score_examples` does. Embeddings are [n, 0].

    A measure of the model's certainty works on choices only: for a free answer it needs the
    probability of every token of the vocabulary. Raises InputError for an example without choices.
    """
    difficulty = np.zeros(len(examples), dtype=np.float64)
    if measure is not None and measure.scores_loss:
        rows = server.tokenizer.build_gold_rows(examples)
        difficulty = -_average(compute_logprobs(server, rows, progress=progress, label=label))
    elif measure is not None:
        difficulty = _score_choices(server, examples, measure, progress, label)
    return lm.ScoredExamples(difficulty, np.zeros((len(examples), 0), dtype=np.float32))


def estimate_confidence(
    server: ServedModel,
    pairs: Sequence[tuple[Example, str]],
    *,
    measure: Literal["p_true", "likelihood"],
    batch_size: int | None,
    progress: Progress = ignore_progress,
    label: str = "judge",
) -> NDArray[np.float64]:
    """Return the confidence in every text, [n] in [0, 1], as `lm.estimate_confidence` does."""
    confidence = np.zeros(len(pairs), dtype=np.float64)
    nonempty = [i for i, (_, text) in enumerate(pairs) if text.strip()]
    judged = [pairs[i] for i in nonempty]
    if measure == "likelihood":
        rows = server.tokenizer.build_text_rows(judged)
        logprobs = compute_logprobs(server, rows, progress=progress, label=label)
        confidence[nonempty] = np.exp(_average(logprobs))
        return confidence
    true_rows, false_rows = server.tokenizer.build_judge_rows(judged)
    true = compute_logprobs(server, true_rows, progress=progress, label=f"{label}: true")
    false = compute_logprobs(server, false_rows, progress=progress, label=f"{label}: false")
    confidence[nonempty] = expit([sum(t) - sum(f) for t, f in zip(true, false, strict=True)])
    return confidence


def score_targets(
    server: ServedModel,
    sequences: Sequence[TrainingSequence],
    *,
    batch_size: int | None,
    progress: Progress = ignore_progress,
    label: str = "score targets",
) -> list[TargetLogprobs]:
    """Return the log-probabilities of every target, as `lm.score_targets` does."""
    rows = server.tokenizer.build_target_rows(sequences)
    logprobs = compute_logprobs(server, rows, progress=progress, label=label)
    return server.tokenizer.join_logprobs(sequences, logprobs)


def compute_logprobs(
    server: ServedModel,
    rows: Sequence["lm.ScoringRow"],
    *,
    progress: Progress = ignore_progress,
    label: str,
) -> list[list[float]]:
    """Return the log-probabilities in nats of each row's scored tokens.

    Each result is saved in the stage's folder under `label` and not requested again. Raises
    InputError if the server does not return log-probabilities.
    """
    file = server.workdir / f"{re.sub(r'[^a-z0-9]+', '-', label.lower())}.jsonl"
    known = dict(chain.from_iterable(read_appended_jsonl(file)))
    todo = [i for i in range(len(rows)) if i not in known]
    unsaved: list[tuple[int, list[float]]] = []
    if todo:
        _check_logprobs(server)
        progress(label, len(known), len(rows))

    def save() -> None:
        append_jsonl(file, unsaved)
        unsaved.clear()
        progress(label, len(known), len(rows))

    def on_answer(index: int, answer: JsonBody) -> None:
        row = todo[index]
        logprobs = _read_logprobs(answer, len(rows[row].ids), rows[row].n_scored)
        if logprobs is None:
            raise _build_error(server, f"none for {label} {row + 1} of {len(rows)}")
        known[row] = logprobs
        unsaved.append((row, logprobs))
        if len(unsaved) >= SAVE_EVERY:
            save()

    def build_body(index: int) -> JsonBody:
        return _build_echo_request(server, rows[todo[index]].ids)

    try:
        send_all(server, len(todo), build_body, on_answer, label=label)
    finally:
        if unsaved:
            save()
    return [known[i] for i in range(len(rows))]


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
    means = _average(compute_logprobs(server, rows, progress=progress, label=label))
    ends = np.cumsum([len(choices) for choices in by_question])[:-1]
    return np.array([score_choices(choices) for choices in np.split(means, ends)])


def _average(logprobs: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    return np.array([sum(values) / len(values) for values in logprobs], dtype=np.float64)


def _build_echo_request(server: ServedModel, ids: Sequence[int]) -> JsonBody:
    return {"model": server.endpoint.model, "prompt": list(ids), **ECHO_PARAMETERS}


def _read_logprobs(answer: JsonBody, n_ids: int, n_scored: int) -> list[float] | None:
    """Return those of the last `n_scored` of the first `n_ids` tokens; None without values."""
    values = (answer["choices"][0].get("logprobs") or {}).get("token_logprobs")
    if not isinstance(values, list) or len(values) < n_ids:
        return None
    scored = values[n_ids - n_scored : n_ids]
    if not all(isinstance(value, int | float) for value in scored):
        return None
    return [float(value) for value in scored]


def _check_logprobs(server: ServedModel) -> None:
    ids = server.tokenizer.tokenize_prompts([PROBE])[0]
    if server.prompt_format != "tokens":
        raise _build_error(server, "it does not accept tokens as a prompt")
    answer = send_one(server, _build_echo_request(server, ids))
    if isinstance(answer, RequestOutcome):
        raise _build_error(server, answer.reason)
    if _read_logprobs(answer, len(ids), len(ids) - 1) is None:
        raise _build_error(server, "its answer has none for the prompt")


def _build_error(server: ServedModel, reason: str) -> InputError:
    return InputError(
        f"{server.address} returns no log-probabilities of a prompt's tokens ({reason}). Use "
        f"assistant.scoring_backend: transformers, or vLLM or SGLang."
    )
