"""On-policy targets: what the trained model itself writes takes the place of a row's own target."""

from collections.abc import Sequence

from bridgekd.lm.generate import PromptRow, sample_ids
from bridgekd.lm.load import LocalModel
from bridgekd.lm.tokenization import TokenizedSequence, find_stop_ids, find_turn_end_id
from bridgekd.rng import make_rng


def sample_targets(
    local: LocalModel,
    rows: Sequence[TokenizedSequence],
    names: Sequence[str],
    *,
    fraction: float,
    seed: int,
    max_new_tokens: int,
) -> list[TokenizedSequence]:
    """Return the rows in order, about `fraction` of them with a target that the model samples.

    names[i] names row i and its update. Its random streams depend on nothing else, so batches,
    processes and resumed runs change nothing. The tokens of a sampled target share the total weight
    of the row's own target, so the weight of an update stays. A row without a prompt keeps its own.
    """
    chosen = [
        i
        for i, (row, name) in enumerate(zip(rows, names, strict=True))
        if row.n_prompt and make_rng(seed, f"choose {name}").random() < fraction
    ]
    prompts = [
        PromptRow(rows[i].ids[: rows[i].n_prompt], seed, f"sample {names[i]}") for i in chosen
    ]
    stop = find_stop_ids(local.tokenizer, local.model)
    result = list(rows)
    for i, new in zip(chosen, sample_ids(local, prompts, max_new_tokens, stop), strict=True):
        is_ended = len(new) < max_new_tokens
        target = [*new, find_turn_end_id(local.tokenizer)] if is_ended else new
        weight = sum(rows[i].weights) / len(target)
        n_prompt = rows[i].n_prompt
        result[i] = TokenizedSequence(
            (*rows[i].ids[:n_prompt], *target),
            (0.0,) * n_prompt + (weight,) * len(target),
            n_prompt,
        )
    return result
