"""The state of what FSDP2 shards: rows of each tensor, so a range of it flattened; the optimizer's state alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from transformers import PreTrainedModel

from lightrft.ranks.base import World
from lightrft.strategy.base import Handle, Weights, named_tensors, saved_tensors
from lightrft.strategy.held import Held, fill, fill_weights, moments, own_pieces, set_steps, steps_of
from lightrft.strategy.optimizer import fresh_state, place_schedule, steps_done
from lightrft.strategy.state import WEIGHT, ModelState, StateReader


def read_state(handle: Handle, world: World) -> ModelState:
    found = {name: steps_of(state) for name, _, state in _states(handle)}
    steps = {name: count for name, count in found.items() if count is not None}
    return ModelState(
        own_pieces([*_held(handle, world), *handle.average]), steps, {"optimizer_steps": steps_done(handle.scheduler)}
    )


def set_state(handle: Handle, world: World, reader: StateReader, *, adam_offload: bool) -> None:
    for name, parameter, state in _states(handle):
        if not state:
            state.update(fresh_state(handle.optimizer, parameter, on_host=adam_offload))
        set_steps(state, reader.steps.get(name, 0))
    fill([*_held(handle, world), *handle.average], reader)
    place_schedule(handle.scheduler, int(reader.numbers["optimizer_steps"]))


def fill_empty(model: PreTrainedModel, world: World, weights: Weights, device: torch.device) -> None:
    """Gives memory to what this rank holds of a model on the meta device, sharded or not, and reads that alone."""
    model._apply(lambda value: torch.empty_like(value, device=device) if value.is_meta else value.to(device))
    sharded = any(isinstance(value, DTensor) for value in model.parameters())
    if not sharded and isinstance(model, PreTrainedModel):  # a critic is none, and has no head to tie
        model.tie_weights()  # each name was given a tensor of its own, which FSDP2's shards are spared
    fill_weights((_range(WEIGHT, name, value, world) for name, value in named_tensors(model)), weights)


def trained(handle: Handle, world: World) -> Iterator[Held]:
    for name, parameter, _ in _states(handle):
        yield _range(WEIGHT, name, parameter, world)


def _states(handle: Handle) -> Iterator[tuple[str, Tensor, dict[str, Any]]]:
    """Of what trains: name, parameter, and what the optimizer knows of it, {} before its first step."""
    for name, parameter in handle.model.named_parameters():
        if parameter.requires_grad:
            stepped = handle.masters.get(name, parameter)
            yield name, stepped, handle.optimizer.state[stepped]


def _held(handle: Handle, world: World) -> Iterator[Held]:
    for name, value in saved_tensors(handle):
        held = _range(WEIGHT, name, handle.masters.get(name, value), world)
        yield replace(held, values=handle.finer[name].view(-1)) if name in handle.finer else held
    for name, _, state in _states(handle):
        yield from (_range(kind, name, value, world) for kind, value in moments(state))


def _range(kind: str, name: str, value: Tensor, world: World) -> Held:
    """A buffer is whole on every rank; a shard may be held by several groups of ranks."""
    shape = tuple(value.shape)
    if not isinstance(value, DTensor):
        return Held(kind, name, shape, 0, value.detach().view(-1), world.rank, world.size)
    mesh, copy, copies = value.device_mesh, 0, 1
    _, offset = compute_local_shape_and_global_offset(shape, mesh, value.placements)
    for axis, placement in enumerate(value.placements):
        if placement.is_replicate():
            copy, copies = copy * mesh.size(axis) + mesh.get_local_rank(axis), copies * mesh.size(axis)
    values = value._local_tensor.detach().view(-1)
    return Held(kind, name, shape, offset[0] * prod(shape[1:]), values, copy, copies)
