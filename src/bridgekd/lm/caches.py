"""What a model remembers of rows that come and go: caches cut, joined and written in place.

The one idea: every row of a batch ends at the same column and is padded on the left. So rows of any
length stand beside each other, a new one joins wherever the others are, and what is nobody's on the
left is cut off.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import (
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionLayer,
)

from bridgekd.lm.loading import plain_network

ROOM = 64  # columns that a joined cache has to spare, and gets anew when they are used up
Part = tuple[Any, Tensor]  # (a cache, the rows of it that stay, [k] int64)


class RoomyLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values with free columns behind them: a step writes one column and copies none."""

    def __init__(self, keys: Tensor, values: Tensor, width: int) -> None:
        """Keys and values [n, heads, width + what is free, size]; the tensors are written to."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(keys, values)
        self._end, self._all = width, [keys, values]
        self._show()

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """The keys and values with these behind them."""
        start, self._end = self._end, self._end + key_states.shape[2]
        if self._end > self._all[0].shape[2]:
            room = self._end - start + ROOM
            self._all = [_with_room(held[:, :, :start], room) for held in self._all]
        for held, new in zip(self._all, (key_states, value_states), strict=True):
            held[:, :, start : self._end] = new
        return self._show()

    def _show(self) -> tuple[Tensor, Tensor]:
        keys, values = (held[:, :, : self._end] for held in self._all)
        self.keys, self.values = keys, values
        return keys, values


JOINABLE = (DynamicLayer, DynamicSlidingWindowLayer, LinearAttentionLayer)


def joinable(model: Any) -> bool:
    """Whether the rows of two of the model's caches can stand in one: attention over everything or
    a window, short convolutions, linear attention. Other kinds of layer are not known here.
    """
    return all(type(layer) in JOINABLE for layer in DynamicCache(config=model.config).layers)


def takes_drawn_mask(model: Any) -> bool:
    """Whether a step may be given the mask that attention adds, [n, 1, 1, width]: one for all
    layers, positions told apart from it. Otherwise the model draws it anew from [n, width].
    """
    network = plain_network(model)
    decoder, config = network.get_decoder(), network.config
    layers = DynamicCache(config=config).layers
    return (
        hasattr(decoder, "rotary_emb")
        and not getattr(config, "alibi", False)
        and getattr(config, "_attn_implementation", None) in ("sdpa", "eager")
        and all(type(layer) in (DynamicLayer, LinearAttentionLayer) for layer in layers)
    )


def joined(model: Any, parts: Sequence[Part], width: int) -> Any:
    """One cache of the rows of all parts, in order, `width` columns wide.

    No row that stays may be longer than that. Layers leave the parts as they are joined, so that
    there are never more than one layer's keys and values twice.
    """
    cache: Any = DynamicCache(config=model.config)
    for i, layer in enumerate(cache.layers):
        sources = [(part.layers[i], rows) for part, rows in parts]
        if isinstance(layer, LinearAttentionLayer):
            _join_states(layer, sources)
        else:
            cache.layers[i] = _join_columns(layer, sources, width)
        for part, _ in parts:
            part.layers[i] = None
    return cache


def _join_columns(layer: Any, sources: Sequence[Part], width: int) -> Any:
    if isinstance(layer, DynamicSlidingWindowLayer):
        shown = min(width, layer.sliding_window - 1)
        keys, values = (_columns(sources, name, shown, 0) for name in ("keys", "values"))
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values, layer.cumulative_length = keys, values, width
        return layer
    keys, values = (_columns(sources, name, width, ROOM) for name in ("keys", "values"))
    return RoomyLayer(keys, values, width)


def _columns(sources: Sequence[Part], name: str, width: int, room: int) -> Tensor:
    """Rows of all sources, each ending with column `width`; zeros on their left, then free room."""
    held = [(getattr(layer, name), rows) for layer, rows in sources]
    n, first = sum(len(rows) for _, rows in held), held[0][0]
    out: Tensor = first.new_empty(n, first.shape[1], width + room, first.shape[3])
    start = 0
    for states, rows in held:
        end, left = start + len(rows), max(0, width - states.shape[2])
        out[start:end, :, :left] = 0
        out[start:end, :, left:width] = states[:, :, states.shape[2] - (width - left) :][rows]
        start = end
    return out


def _join_states(layer: Any, sources: Sequence[Part]) -> None:
    first = sources[0][0]
    layer.dtype, layer.device = first.dtype, first.device
    for name in ("has_previous_state", "conv_kernel_size"):
        getattr(layer, name).update(getattr(first, name))
    for name in ("conv_states", "recurrent_states"):
        there = getattr(first, f"is_{name}_initialized")
        getattr(layer, f"is_{name}_initialized").update(there)
        for key in (key for key, is_there in there.items() if is_there):
            rows = [getattr(source, name)[key].index_select(0, rows) for source, rows in sources]
            getattr(layer, name)[key] = torch.cat(rows)


def _with_room(states: Tensor, room: int) -> Tensor:
    n, heads, width, size = states.shape
    roomy = states.new_empty(n, heads, width + room, size)
    roomy[:, :, :width] = states
    return roomy
