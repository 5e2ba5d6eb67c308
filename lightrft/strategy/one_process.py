"""One process in float32: it holds the whole model itself, under `--fsdp` and under ZeRO 1 and 2.

Neither library has anything to share out or to round there, but each would move all weights or all gradients about:
FSDP2 copies a layer's weights for every pass and its gradients after it, ZeRO flattens the gradients and copies the
weights back. For few tokens that is most of a step, and for a small model their hooks are.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor
from transformers import PreTrainedModel

from lightrft.ranks.base import ONE_RANK, World
from lightrft.strategy import fsdp2_state
from lightrft.strategy.base import Handle, OptimArgs, StepReport, Weights, named_tensors, without_adapters
from lightrft.strategy.frozen import Frozen
from lightrft.strategy.held import Held
from lightrft.strategy.optimizer import make_optimizer, make_scheduler, take_step
from lightrft.strategy.state import ModelState, StateReader

ALIGNED = 64  # bytes: where torch puts what it allocates


def _align(model: PreTrainedModel) -> None:
    """Weights that were read lie as they do in the file, at any address, by which a product's last bits differ."""
    for value in model.parameters():
        if value.is_floating_point() and value.data_ptr() % ALIGNED:
            value.data = value.data.clone()


class OneProcess:
    """Weights, gradients and the optimizer's state are plain tensors. frozen: as for the other strategies."""

    def __init__(self, world: World, frozen: Frozen | None = None) -> None:
        assert world.size == 1, "several processes share a model"
        self.world, self.ranks, self.frozen = world, ONE_RANK, frozen or Frozen()

    def prepare(self, model: PreTrainedModel, optim: OptimArgs | None, weights: Weights | None = None) -> Handle:
        _align(model)
        if optim is None:
            return self.frozen.prepare(model, self.world, None, weights)
        if weights is not None:
            fsdp2_state.fill_empty(model, self.world, weights, self.world.device)
        optimizer = make_optimizer(model.parameters(), optim)
        return Handle(model, model, optimizer, make_scheduler(optimizer, optim), optim)

    def backward(self, handle: Handle, loss: Tensor, *, last: bool) -> None:
        loss.backward()

    def step(self, handle: Handle) -> StepReport:
        return take_step(handle)

    def gathered(self, handle: Handle) -> AbstractContextManager[PreTrainedModel]:
        return nullcontext(handle.model)

    def full_params(self, handle: Handle) -> Iterator[tuple[str, Tensor]]:
        return without_adapters(handle, self.tensors(handle))

    def tensors(self, handle: Handle, names: Container[str] | None = None) -> Iterator[tuple[str, Tensor]]:
        return ((name, value) for name, value in named_tensors(handle.model) if names is None or name in names)

    def trained(self, handle: Handle) -> Iterator[Held]:
        return fsdp2_state.trained(handle, self.world)

    def state(self, handle: Handle) -> ModelState:
        return fsdp2_state.read_state(handle, self.world)

    def load_state(self, handle: Handle, reader: StateReader) -> None:
        fsdp2_state.set_state(handle, self.world, reader, adam_offload=False)

    def use_loaded(self, handle: Handle) -> None:
        """What is loaded is computed with as it is."""
