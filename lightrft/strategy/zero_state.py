"""The state of what ZeRO partitions: each rank has the master weights and moments of a range of each parameter.

Stages 1 and 2 cut the row of all trained parameters into equal parts, stage 3 cuts each parameter. Either way a rank
holds its ranges one after another in flat tensors, which are what the optimizer steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightrft.ranks.base import World
from lightrft.strategy.base import Handle, Weights, saved_tensors
from lightrft.strategy.held import Held, fill, fill_weights, moments, own_pieces, set_steps, steps_of
from lightrft.strategy.optimizer import fresh_state, place_schedule, steps_done
from lightrft.strategy.state import WEIGHT, ModelState, StateReader

SCALER = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")  # what changes in float16's loss scaling


@dataclass(frozen=True)
class Fragment:
    """The range of a trained parameter that this rank steps: `length` elements, from `offset` on in `flat`."""

    name: str
    shape: tuple[int, ...]
    start: int
    length: int
    flat: Tensor
    offset: int

    def of(self, flat: Tensor) -> Tensor:
        """[length], of the flat tensor or of a moment of it."""
        return flat.detach().narrow(0, self.offset, self.length)


def read_state(handle: Handle, world: World) -> ModelState:
    found = {each.name: steps_of(_states(handle)[each.flat]) for each in _fragments(handle, world)}
    steps = {name: count for name, count in found.items() if count is not None}
    numbers = {"optimizer_steps": steps_done(handle.scheduler), **_scaling(handle)}
    return ModelState(own_pieces([*_held(handle, world), *handle.average]), steps, numbers)


def set_state(handle: Handle, world: World, reader: StateReader) -> None:
    _set_steps(handle, world, reader)
    fill([*_held(handle, world), *handle.average], reader)
    place_schedule(handle.scheduler, int(reader.numbers["optimizer_steps"]))
    for name, value in _scaling(handle).items():
        setattr(handle.optimizer.loss_scaler, name, reader.numbers.get(name, value))


def use_masters(handle: Handle, world: World) -> None:
    """The weights that are computed with, of the masters; stages 1 and 2 gather them from all ranks."""
    _round_masters(handle.optimizer)
    _round_finer(handle, world)
    _forget_second_copies(handle.model)


def set_masters(handle: Handle, world: World, whole: Mapping[str, Tensor]) -> None:
    """The master weights of what trains, from whole tensors by name; those without one stay."""
    for each in _fragments(handle, world):
        if each.name in whole:
            each.of(each.flat).copy_(whole[each.name].view(-1)[each.start : each.start + each.length])


def set_weights(handle: Handle, world: World, weights: Weights) -> None:
    """Of what trains and of what does not, from what the files have."""
    fill_weights((each for each in _held(handle, world) if each.kind == WEIGHT), weights)
    _round_masters(handle.optimizer)


def trained(handle: Handle, world: World) -> Iterator[Held]:
    for each in _fragments(handle, world):
        yield Held(WEIGHT, each.name, each.shape, each.start, each.of(each.flat))


def _states(handle: Handle) -> dict[Tensor, dict[str, Any]]:
    """What the optimizer knows of each flat tensor, {} before its first step."""
    return handle.optimizer.optimizer.state


def _fragments(handle: Handle, world: World) -> Iterator[Fragment]:
    for name, parameter in handle.model.named_parameters():
        if parameter.requires_grad:
            of_its_stage = _of_stage_3 if _is_partitioned(parameter) else _of_stage_1_or_2
            yield from of_its_stage(handle.optimizer, name, parameter, world)


def _is_partitioned(value: Any) -> bool:
    """By stage 3."""
    return hasattr(value, "ds_id")


def _of_stage_1_or_2(optimizer: Any, name: str, parameter: Any, world: World) -> Iterator[Fragment]:
    place = parameter._hp_mapping  # None where all of it is another rank's
    if place is not None:
        here, there = place.lp_fragment_address, place.hp_fragment_address
        (flat,) = optimizer.optimizer.param_groups[place.param_group_index]["params"]
        yield Fragment(name, tuple(parameter.shape), here.start, here.numel, flat, there.start)


def _of_stage_3(optimizer: Any, name: str, parameter: Any, world: World) -> Iterator[Fragment]:
    start, length = _part_of_stage_3(parameter, world)
    group, offset, _ = optimizer.grad_position[optimizer.get_param_id(parameter)]
    flat = optimizer.fp32_partitioned_groups_flat[group]
    yield Fragment(name, tuple(parameter.ds_shape), start, length, flat, offset)


def _part_of_stage_3(parameter: Any, world: World) -> tuple[int, int]:
    """First element and length of this rank's part. All parts are equally long; beyond the last element is padding."""
    part = parameter.ds_tensor.ds_numel
    start = min(world.rank * part, parameter.ds_numel)
    return start, min(part, parameter.ds_numel - start)


def _held(handle: Handle, world: World) -> Iterator[Held]:
    for name, value in saved_tensors(handle):
        if not value.requires_grad:
            yield _frozen(name, handle.finer.get(name, value), world)
    yield from trained(handle, world)
    for each in _fragments(handle, world):
        for kind, moment in moments(_states(handle)[each.flat]):
            yield Held(kind, each.name, each.shape, each.start, each.of(moment))


def _frozen(name: str, value: Any, world: World) -> Held:
    """What does not train, and buffers: whole on every rank, but for stage 3's parameters."""
    if not _is_partitioned(value):
        return Held(WEIGHT, name, tuple(value.shape), 0, value.detach().view(-1), world.rank, world.size)
    start, length = _part_of_stage_3(value, world)
    return Held(WEIGHT, name, tuple(value.ds_shape), start, value.ds_tensor.detach().narrow(0, 0, length))


def _set_steps(handle: Handle, world: World, reader: StateReader) -> None:
    """A flat tensor has one count for all that lies in it."""
    for each in _fragments(handle, world):
        state = _states(handle)[each.flat]
        if not state:
            state.update(fresh_state(handle.optimizer.optimizer, each.flat))
        set_steps(state, max(reader.steps.values(), default=0))


def _round_masters(optimizer: Any) -> None:
    """The weights that are computed with, on all ranks, as after a step."""
    if hasattr(optimizer, "update_lp_params"):  # stages 1 and 2
        optimizer.update_lp_params()
        return
    for group in range(len(optimizer.fp32_partitioned_groups_flat)):
        optimizer._reassign_or_swap_out_partitioned_parameters(group)


def _forget_second_copies(model: Any) -> None:
    """Stage 3 may keep a copy of each part beside it, which it would gather in its place until the next step."""
    for parameter in filter(_is_partitioned, model.parameters()):
        parameter.ds_secondary_tensor = None


@torch.no_grad()
def _round_finer(handle: Handle, world: World) -> None:
    for name, value in handle.model.named_parameters():
        if name in handle.finer:
            held = _frozen(name, value, world)
            held.values.copy_(handle.finer[name].view(-1)[held.start : held.start + len(held.values)])


def _scaling(handle: Handle) -> dict[str, float]:
    """Of the loss, by float16's scaler."""
    scaler = getattr(handle.optimizer, "loss_scaler", None)
    return {name: getattr(scaler, name) for name in SCALER} if scaler is not None and scaler.dynamic else {}
