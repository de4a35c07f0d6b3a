"""Whether a model completes texts word for word."""

from torch import Tensor

from bridgekd.lm.confidence import Pairs, build_text_rows
from bridgekd.lm.forward import ScoringRow, eval_mode
from bridgekd.lm.load import LocalModel
from bridgekd.lm.memory import score_rows
from bridgekd.progress import Progress, ignore_progress

MIN_SCORED = 4  # a completion of fewer tokens is often guessed


def find_memorized(
    local: LocalModel,
    pairs: Pairs,
    *,
    batch_size: int | None,
    progress: Progress = ignore_progress,
) -> list[bool]:
    """Return for each text whether greedy decoding continues its first half with its second half.

    pairs: (question, text); the text follows `render_cot_prompt`. Greedy decoding writes the second
    half exactly if each of its tokens is the most probable one after all tokens before it, so one
    forward pass is enough. The last token is not compared: in training it may be another one,
    merged with the line break after it. A text of fewer than 2 * MIN_SCORED tokens is not
    memorized.
    """
    rows: list[ScoringRow] = []
    scored: list[int] = []
    for i, row in enumerate(build_text_rows(local.tokenizer, pairs)):
        n = (row.n_scored + 1) // 2 - 1
        if n >= MIN_SCORED:
            rows.append(ScoringRow(row.ids[:-1], row.is_question, n))
            scored.append(i)
    is_memorized, n_done = [False] * len(pairs), 0

    def keep(batch: list[int], shares: Tensor, _embeddings: Tensor) -> None:
        nonlocal n_done
        for i, share in zip(batch, shares.tolist(), strict=True):
            is_memorized[scored[i]] = share == 1
        n_done += len(batch)
        progress("complete rationales", n_done, len(rows))

    with eval_mode(local.model):
        score_rows(local, rows, _is_greedy, batch_size, keep)
    return is_memorized


def _is_greedy(logits: Tensor, targets: Tensor) -> Tensor:
    return (logits.argmax(-1) == targets).float()
