"""A key-value cache that is written in place.

The library's dynamic layer concatenates at every token, which copies the whole cache each time; here a layer owns
room for all tokens of the generation and hands out views. Layers of other kinds (sliding windows, linear attention)
stay as the library makes them.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

PARAMETERS = ("cache", "past_key_values", "cache_params")  # from transformers 5.24 on; before; before, of Mamba's kind


class RoomyLayer(DynamicLayer):
    """keys and values [B, heads, length, head_dim]: of a prompt as they come, and then views into buffers with room for
    `room` more tokens.

    Columns `first` to `end` of the buffers are what is seen. A token of every row goes into the column `end`, so a row
    that came later begins further on: its prompt ends where the others' last tokens are. With `fixed` that column is a
    number on the device, and so many columns from the front are seen: the same shapes and addresses at every token.
    """

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room, self.first, self.end = room, 0, 0
        self.fixed: tuple[Tensor, int] | None = None
        self._buffers: tuple[Tensor, Tensor] | None = None

    @property
    def capacity(self) -> int:
        assert self._buffers is not None, "there is no room before the prompt"
        return self._buffers[0].shape[-2]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = (
                key_states.contiguous(),
                value_states.contiguous(),
            )  # not a part of something larger
            self.end = key_states.shape[-2]
            return key_states, value_states
        if self._buffers is None:  # the prompt was not fanned out
            self.reorder_cache(torch.arange(len(key_states), device=key_states.device))
        assert self._buffers is not None
        if self.fixed is not None:
            return self._update_fixed(*self.fixed, key_states, value_states)
        new = key_states.shape[-2]
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer.narrow(2, self.end, new).copy_(states)
        self.end += new
        return self._view()

    def _update_fixed(self, column: Tensor, seen: int, *states: Tensor) -> tuple[Tensor, Tensor]:
        assert self._buffers is not None
        for buffer, new in zip(self._buffers, states, strict=True):
            buffer.index_copy_(2, column, new)
        keys, values = (buffer.narrow(2, 0, seen) for buffer in self._buffers)
        return keys, values

    def append(self, keys: Tensor, values: Tensor, column: int) -> tuple[Tensor, Tensor]:
        """keys and values [B, heads, head_dim] of one token of every row go into `column`; those that are seen then."""
        assert self._buffers is not None, "there is no room before the prompt"
        for buffer, states in zip(self._buffers, (keys, values), strict=True):
            buffer.select(2, column).copy_(states)
        seen_keys, seen_values = (buffer.narrow(2, self.first, column + 1 - self.first) for buffer in self._buffers)
        return seen_keys, seen_values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Row i becomes what row beam_idx[i] was: fans a prompt out to its samples, drops finished rows."""
        assert self.keys is not None and self.values is not None, "there is nothing to reorder before the prompt"
        keys, values = (self.keys, self.values) if self._buffers is None else self._view()
        whole = self.end + self.room if self._buffers is None else self.capacity
        self._buffers = (_rows(keys, beam_idx, whole), _rows(values, beam_idx, whole))
        self.first, self.end = 0, self.end - self.first
        self._view()

    def put(self, rows: Tensor, prompts: RoomyLayer, which: Tensor) -> None:
        """Row rows[i] becomes the prompt which[i] of another layer; its last token is where all others' are."""
        assert self._buffers is not None and prompts.keys is not None and prompts.values is not None
        width = prompts.end
        assert width <= self.end, "prompts come in the order of their lengths, the longest first"
        for buffer, states in zip(self._buffers, (prompts.keys, prompts.values), strict=True):
            buffer[rows, :, self.end - width : self.end] = states[which]

    def begin_at(self, first: int) -> None:
        """Nothing before this column is needed any more."""
        self.first = first
        self._view()

    def move_to_front(self) -> None:
        """What is seen goes to the first columns, in place."""
        assert self._buffers is not None
        for buffer in self._buffers:
            length = self.end - self.first
            buffer[:, :, :length] = buffer[:, :, self.first : self.end].clone()
        self.first, self.end = 0, self.end - self.first
        self._view()

    def get_seq_length(self) -> int:
        return self.end - self.first

    def _view(self) -> tuple[Tensor, Tensor]:
        assert self._buffers is not None
        keys, values = (buffer.narrow(2, self.first, self.end - self.first) for buffer in self._buffers)
        self.keys, self.values = keys, values
        return keys, values


def _rows(states: Tensor, rows: Tensor, whole: int) -> Tensor:
    """states [B, heads, length, width] -> [len(rows), heads, whole, width]; copied once.

    Beyond `length` there are zeros: what a mask hides is multiplied by zero, and what memory holds may be NaN.
    """
    _, heads, length, width = states.shape
    buffer = states.new_zeros(len(rows), heads, whole, width)
    torch.index_select(states, 0, rows, out=buffer[:, :, :length])
    return buffer


def make_cache(config: Any, room: int) -> DynamicCache:
    """The cache that suits `config`, its plain attention layers written in place for `room` tokens after the prompt."""
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def roomy_layers(cache: DynamicCache) -> list[RoomyLayer] | None:
    """All layers, where rows can come and go in all of them."""
    layers = [layer for layer in cache.layers if isinstance(layer, RoomyLayer)]
    return layers if layers and len(layers) == len(cache.layers) else None


def cache_parameter(model: PreTrainedModel) -> str:
    """The name under which the model takes its past. A wrong one is swallowed by `**kwargs`, without a word."""
    there = inspect.signature(model.forward).parameters
    found = next((name for name in PARAMETERS if name in there), None)
    if found is None:
        raise TypeError(f"its forward has no parameter {', '.join(PARAMETERS[:-1])} or {PARAMETERS[-1]}")
    return found
