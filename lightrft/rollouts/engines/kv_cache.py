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
    `room` more tokens."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self._buffers: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
            return self.keys, self.values
        assert self.keys is not None and self.values is not None
        start, end = self.keys.shape[-2], self.keys.shape[-2] + key_states.shape[-2]
        if self._buffers is None:  # the prompt was not fanned out
            self.reorder_cache(torch.arange(len(self.keys), device=self.keys.device))
        assert self._buffers is not None
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = states
        self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Row i becomes what row beam_idx[i] was: fans a prompt out to its samples, drops finished rows."""
        assert self.keys is not None and self.values is not None, "there is nothing to reorder before the prompt"
        length = self.keys.shape[-2]
        whole = length + self.room if self._buffers is None else self._buffers[0].shape[-2]
        self._buffers = (_rows(self.keys, beam_idx, whole), _rows(self.values, beam_idx, whole))
        self.keys, self.values = (buffer[:, :, :length] for buffer in self._buffers)


def _rows(states: Tensor, rows: Tensor, whole: int) -> Tensor:
    """states [B, heads, length, width] -> [len(rows), heads, whole, width], empty beyond `length`; copied once."""
    _, heads, length, width = states.shape
    buffer = states.new_empty(len(rows), heads, whole, width)
    torch.index_select(states, 0, rows, out=buffer[:, :, :length])
    return buffer


def make_cache(config: Any, room: int) -> DynamicCache:
    """The cache that suits `config`, its plain attention layers written in place for `room` tokens after the prompt."""
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def cache_parameter(model: PreTrainedModel) -> str:
    """The name under which the model takes its past. A wrong one is swallowed by `**kwargs`, without a word."""
    there = inspect.signature(model.forward).parameters
    found = next((name for name in PARAMETERS if name in there), None)
    if found is None:
        raise TypeError(f"its forward has no parameter {', '.join(PARAMETERS[:-1])} or {PARAMETERS[-1]}")
    return found
