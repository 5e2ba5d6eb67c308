"""`--fsdp`: PyTorch's fully_shard (FSDP2)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from lightrft.errors import warn
from lightrft.ranks.base import World
from lightrft.ranks.collectives import Collectives
from lightrft.ranks.meshes import sharding_mesh
from lightrft.strategy import fsdp2_state
from lightrft.strategy.base import Handle, OptimArgs, Precision, StepReport, named_tensors
from lightrft.strategy.optimizer import make_optimizer, make_scheduler
from lightrft.strategy.state import ModelState, StateReader

COMPUTE = {"fp32": None, "bf16": torch.bfloat16}


def _blocks(model: nn.Module) -> list[nn.Module]:
    """What is sharded on its own, inner ones first: the layers that the model declares, or else its repeated ones."""
    names = set(getattr(model, "_no_split_modules", None) or [])
    declared = [module for module in model.modules() if type(module).__name__ in names]
    return declared[::-1] or _repeated(model)


def _repeated(model: nn.Module) -> list[nn.Module]:
    """The largest list of several modules of one class."""
    lists = [list(module) for module in model.modules() if isinstance(module, (nn.ModuleList, nn.Sequential))]
    alike = [blocks for blocks in lists if len(blocks) > 1 and len({type(block) for block in blocks}) == 1]
    found = max(alike, key=lambda blocks: sum(p.numel() for block in blocks for p in block.parameters()), default=[])
    if not found:
        what = f"--fsdp: {type(model).__name__} has no repeated layers, so it is gathered whole for every pass"
        warn(what)
    return found


def _parts(handle: Handle) -> list[FSDPModule]:
    return [module for module in handle.model.modules() if isinstance(module, FSDPModule)]


class FSDP2Strategy:
    """Parameters are float32 shards; with bf16 they are cast for compute and gradients are reduced in float32."""

    def __init__(self, world: World, precision: Precision, *, cpu_offload: bool = False) -> None:
        self.world, self.ranks = world, Collectives(world)
        self.mesh = sharding_mesh(world)
        self.compute = COMPUTE[precision.compute]
        self.offload = CPUOffloadPolicy(pin_memory=world.device.type == "cuda") if cpu_offload else OffloadPolicy()

    def prepare(self, model: PreTrainedModel, optim: OptimArgs | None) -> Handle:
        inner = MixedPrecisionPolicy(param_dtype=self.compute, reduce_dtype=torch.float32)
        for block in _blocks(model):
            fully_shard(block, mesh=self.mesh, mp_policy=inner, offload_policy=self.offload)
        # output_dtype on the root only: on a block it would cast the residual stream up and down at every layer
        root = MixedPrecisionPolicy(self.compute, torch.float32, output_dtype=torch.float32)
        fully_shard(model, mesh=self.mesh, mp_policy=root, offload_policy=self.offload)
        if optim is None:
            return Handle(model, model)
        optimizer = make_optimizer(model.parameters(), optim)
        return Handle(model, model, optimizer, make_scheduler(optimizer, optim), optim)

    def backward(self, handle: Handle, loss: Tensor, *, last: bool) -> None:
        handle.module.set_requires_gradient_sync(last)
        (loss * self.world.size).backward()  # FSDP averages over ranks, our losses are shares of a sum

    def step(self, handle: Handle) -> StepReport:
        assert handle.optim is not None
        parameters = list(handle.model.parameters())
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        if handle.optim.max_norm > 0:
            nn.utils.clip_grads_with_norm_(parameters, handle.optim.max_norm, norm)
        lr, skipped = handle.scheduler.get_last_lr()[0], not bool(norm.isfinite())
        if not skipped:
            handle.optimizer.step()
            handle.scheduler.step()
        handle.optimizer.zero_grad(set_to_none=True)
        return StepReport(float(norm), lr, skipped)

    @contextmanager
    def gathered(self, handle: Handle) -> Iterator[PreTrainedModel]:
        for part in _parts(handle):
            part.unshard()
            part.set_reshard_after_forward(False, recurse=False)
        try:
            yield handle.model
        finally:
            for part in _parts(handle):
                part.set_reshard_after_forward(True, recurse=False)
            self._reshard(handle)

    def full_params(self, handle: Handle) -> Iterator[tuple[str, Tensor]]:
        self._reshard(handle)
        for name, value in named_tensors(handle.model):
            yield name, value.full_tensor() if isinstance(value, DTensor) else value

    def _reshard(self, handle: Handle) -> None:
        """A forward pass without a backward leaves the root's parameters whole, in the compute dtype and on loan."""
        for part in _parts(handle):
            part.reshard()

    def state(self, handle: Handle) -> ModelState:
        self._reshard(handle)
        return fsdp2_state.read_state(handle, self.world)

    def load_state(self, handle: Handle, reader: StateReader) -> None:
        self._reshard(handle)
        fsdp2_state.set_state(handle, self.world, reader)
