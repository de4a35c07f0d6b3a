"""LoRA adapters that become part of the weights they were trained on."""

from typing import Any

import torch


def merge_weights(network: Any) -> Any:
    """Return the transformers model with its adapter added to the weights; others unchanged."""
    if hasattr(network, "merge_and_unload"):
        _untie_head(network)
        network = network.merge_and_unload()
    return network


def _untie_head(network: Any) -> None:
    """Copy a tied output layer that has an adapter, so that merging leaves the embeddings as is."""
    head = network.get_base_model().get_output_embeddings()
    base = getattr(head, "base_layer", None)
    embeddings = network.get_input_embeddings().weight
    if base is not None and base.weight is embeddings:
        base.weight = torch.nn.Parameter(base.weight.detach().clone(), requires_grad=False)
        network.get_base_model().config.tie_word_embeddings = False
