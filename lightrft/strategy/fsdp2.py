"""`--fsdp`: PyTorch's fully_shard (FSDP2)."""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel

from lightrft.ranks.base import World
from lightrft.ranks.collectives import Collectives
from lightrft.ranks.meshes import sharding_mesh
from lightrft.strategy import fsdp2_state
from lightrft.strategy.base import (
    Handle,
    OptimArgs,
    Precision,
    StepReport,
    Weights,
    named_tensors,
    without_adapters,
)
from lightrft.strategy.frozen import Frozen
from lightrft.strategy.held import Held
from lightrft.strategy.masters import finest, round_masters, take_masters
from lightrft.strategy.optimizer import make_optimizer, make_scheduler, step_from_host, take_step
from lightrft.strategy.sharding import shard, whole
from lightrft.strategy.state import ModelState, StateReader

COMPUTE = {"fp32": None, "bf16": torch.bfloat16}


def _parts(handle: Handle) -> list[FSDPModule]:
    return [module for module in handle.model.modules() if isinstance(module, FSDPModule)]


def _leave_whole(model: nn.Module, layers: bool) -> None:
    """After a forward pass; the root always stays, since its backward pass comes at once."""
    for part in model.modules():
        if isinstance(part, FSDPModule):
            part.set_reshard_after_forward(part is not model and not layers, recurse=False)


def _begin_step(model: nn.Module, *_: object) -> None:
    """Before a forward pass: one with a backward pass leaves all weights whole, until the step's last one."""
    if torch.is_grad_enabled():
        _leave_whole(model, True)


class FSDP2Strategy:
    """Parameters are float32 shards; with bf16 they are cast for compute and gradients are reduced in float32.

    masters_apart: with bf16 the shards are bf16, and the optimizer has float32 masters of them (`--use_mp_opt`).
    shard_size: processes that share one copy of the shards; None = all of them. cpu_offload: shards, gradients and the
    optimizer's state are kept in host memory, and the step is made there; adam_offload: the optimizer's state alone.
    once_a_step: weights are gathered for a step's first forward pass and stay whole until its last backward pass, which
    alone reduces gradients; each process adds up whole ones until then, in float32 (`--fsdp_reshard step`).
    frozen: how a model without an optimizer is held; None = as one with.
    """

    def __init__(
        self,
        world: World,
        precision: Precision,
        *,
        shard_size: int | None = None,
        cpu_offload: bool = False,
        adam_offload: bool = False,
        masters_apart: bool = False,
        once_a_step: bool = False,
        frozen: Frozen | None = None,
    ) -> None:
        self.world, self.ranks = world, Collectives(world)
        self.mesh = sharding_mesh(world, shard_size)
        self.compute = COMPUTE[precision.compute]
        self.cpu_offload, self.adam_offload, self.masters_apart = cpu_offload, adam_offload, masters_apart
        self.once_a_step = once_a_step
        self.frozen = frozen or Frozen(shard_size or world.size, cpu_offload)

    def prepare(self, model: PreTrainedModel, optim: OptimArgs | None, weights: Weights | None = None) -> Handle:
        if optim is None:
            return self.frozen.prepare(model, self.world, self.compute, weights)
        shard(model, self.mesh, self.compute, on_host=self.cpu_offload)
        if self.once_a_step:
            model.register_forward_pre_hook(_begin_step, prepend=True)
        if weights is not None:
            place = torch.device("cpu") if self.cpu_offload else self.world.device
            fsdp2_state.fill_empty(model, self.world, weights, place)
        masters, finer = {}, {}
        if self.masters_apart and self.compute is not None:
            masters, finer = take_masters(model, self.compute)
        optimizer = make_optimizer(masters.values() or model.parameters(), optim)
        scheduler = make_scheduler(optimizer, optim)
        return Handle(model, model, optimizer, scheduler, optim, finer=finer, masters=masters)

    def backward(self, handle: Handle, loss: Tensor, *, last: bool) -> None:
        """Where there are several ranks each keeps its share of the gradient's sum alone, unless told otherwise: one
        that waits for the last micro-batch is a whole model's on every rank."""
        handle.module.set_requires_gradient_sync(last or (self.world.size > 1 and not self.once_a_step))
        if self.once_a_step:
            handle.module.set_reshard_after_backward(last)
            _leave_whole(handle.model, not last)
        (loss * self.world.size).backward()  # FSDP averages over ranks, our losses are shares of a sum

    def step(self, handle: Handle) -> StepReport:
        self._reshard(handle)  # somebody may have looked at the policy since its backward pass
        return take_step(handle, step_from_host if self.adam_offload else None)

    @contextmanager
    def gathered(self, handle: Handle) -> Iterator[PreTrainedModel]:
        for part in _parts(handle):
            part.unshard()
        _leave_whole(handle.model, True)
        try:
            yield handle.model
        finally:
            _leave_whole(handle.model, False)
            self._reshard(handle)

    def full_params(self, handle: Handle) -> Iterator[tuple[str, Tensor]]:
        return without_adapters(handle, self.tensors(handle))

    def tensors(self, handle: Handle, names: Container[str] | None = None) -> Iterator[tuple[str, Tensor]]:
        self._reshard(handle)
        for name, value in named_tensors(handle.model):
            if names is None or name in names:
                yield name, whole(finest(handle, name, value))

    def _reshard(self, handle: Handle) -> None:
        """A forward pass without a backward leaves the root's parameters whole, in the compute dtype and on loan."""
        for part in _parts(handle):
            part.reshard()

    def trained(self, handle: Handle) -> Iterator[Held]:
        self._reshard(handle)
        return fsdp2_state.trained(handle, self.world)

    def state(self, handle: Handle) -> ModelState:
        self._reshard(handle)
        return fsdp2_state.read_state(handle, self.world)

    def load_state(self, handle: Handle, reader: StateReader) -> None:
        self._reshard(handle)
        fsdp2_state.set_state(handle, self.world, reader, adam_offload=self.adam_offload)

    def use_loaded(self, handle: Handle) -> None:
        """But for masters, they are made of the shards before every pass."""
        round_masters(handle, all_of_them=True)
