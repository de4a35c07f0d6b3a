"""On-policy targets: samples of the trained model replace the targets of some rows."""

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

    names[i] names row i and its update. The random streams of a row depend on its name and the seed
    only, so batches, processes and resumed runs change nothing. The tokens of a sampled target
    share the total weight of the row's own target, so the weight of an update does not change. A
    row without a prompt keeps its own target.
    """
    selected = [
        i
        for i, (row, name) in enumerate(zip(rows, names, strict=True))
        if row.n_prompt and make_rng(seed, f"choose {name}").random() < fraction
    ]
    prompts = [
        PromptRow(rows[i].ids[: rows[i].n_prompt], seed, f"sample {names[i]}") for i in selected
    ]
    stop_ids = find_stop_ids(local.tokenizer, local.model)
    samples = sample_ids(local, prompts, max_new_tokens, stop_ids)
    result = list(rows)
    for i, prompt, target in zip(selected, prompts, samples, strict=True):
        if len(target) < max_new_tokens:
            target = [*target, find_turn_end_id(local.tokenizer)]
        weight = sum(rows[i].weights) / len(target)
        n_prompt = rows[i].n_prompt
        weights = (0.0,) * n_prompt + (weight,) * len(target)
        result[i] = TokenizedSequence((*prompt.ids, *target), weights, n_prompt)
    return result
