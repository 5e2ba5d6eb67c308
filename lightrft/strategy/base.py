"""The strategy protocol: what the trainer may ask of DeepSpeed or FSDP2."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from lightrft.ranks.base import Ranks, World

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor
    from transformers import PreTrainedModel

    from lightrft.strategy.held import Held
    from lightrft.strategy.state import ModelState, StateReader


@dataclass(frozen=True)
class OptimArgs:
    """Optimizer and learning-rate schedule; the schedule counts optimizer steps. max_norm 0 = no clipping."""

    name: str
    learning_rate: float
    betas: tuple[float, float]
    epsilon: float
    weight_decay: float
    max_norm: float
    scheduler: str
    warmup_steps: int
    total_steps: int


@dataclass(frozen=True)
class Precision:
    """compute: the dtype of forward and backward; master weights and optimizer state are always float32."""

    compute: Literal["fp32", "bf16", "fp16"]


class LowRank(Protocol):
    """The adapters in a model (models/adapters.py). names: of the tensors that are not `--pretrain`'s."""

    @property
    def names(self) -> Container[str]: ...

    def merged(self, tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """`tensors`, whole and in the model's order, as those of the model without adapters."""
        ...

    def save(self, tensors: Iterable[tuple[str, Tensor]], given: Any, path: Path) -> None:
        """Writes an export of `tensors`, those of `names`; given: what it returns beside the weights."""
        ...

    def at_the_start(self) -> AbstractContextManager[None]:
        """The model is for that long what it was when the run began."""
        ...


@dataclass
class Handle:
    """A prepared model. module is what is called (engine, sharded module); model the Hugging Face model in it.

    finer: of weights that do not train, those that are held in fewer digits than they came in, as they came in: by
    name, in host memory. masters: where the weights that train are held in fewer digits than the optimizer steps, what
    it steps: by name, {} where it steps the weights.
    average: this rank's part of a moving average of the weights, which is saved with them.
    adapters: what trains in the place of the model's own weights.
    """

    module: Any
    model: PreTrainedModel
    optimizer: Any = None
    scheduler: Any = None
    optim: OptimArgs | None = None
    finer: dict[str, Tensor] = field(default_factory=dict)
    masters: Mapping[str, Tensor] = field(default_factory=dict)
    average: tuple[Held, ...] = ()
    adapters: LowRank | None = None


@dataclass(frozen=True)
class StepReport:
    """One optimizer step: gradient norm before clipping, the learning rate used, and whether it was skipped.

    scaling: the skip made float16's loss scale smaller, so the next step may well be taken.
    """

    grad_norm: float
    lr: float
    skipped: bool
    scaling: bool = False


def named_tensors(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Parameters, tied ones once, and the buffers that belong into a checkpoint, under their Hugging Face names."""
    yield from model.named_parameters()
    persistent = model.state_dict().keys()
    yield from ((name, buffer) for name, buffer in model.named_buffers() if name in persistent)


def saved_tensors(handle: Handle) -> Iterator[tuple[str, Tensor]]:
    """Those that a checkpoint holds: all, or with adapters these alone, since the others are `--pretrain`'s."""
    named, adapters = named_tensors(handle.model), handle.adapters
    return named if adapters is None else (each for each in named if each[0] in adapters.names)


def shapes(handle: Handle) -> dict[str, list[int]]:
    """Of each tensor of a checkpoint as a whole, however it is sharded; ZeRO-3 keeps the whole's shape beside it."""
    return {name: list(getattr(value, "ds_shape", value.shape)) for name, value in saved_tensors(handle)}


def without_adapters(handle: Handle, tensors: Iterator[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """All tensors of the model, as Hugging Face names them."""
    return tensors if handle.adapters is None else handle.adapters.merged(tensors)


class Weights(Protocol):
    """Tensors of which ranges can be read, as `StateReader` has them."""

    @property
    def steps(self) -> Mapping[str, int]: ...

    def has(self, kind: str, name: str) -> bool: ...

    def read(self, kind: str, name: str, start: int, length: int) -> Tensor: ...


class Strategy(Protocol):
    world: World

    @property
    def ranks(self) -> Ranks: ...

    def prepare(self, model: PreTrainedModel, optim: OptimArgs | None, weights: Weights | None = None) -> Handle:
        """Takes the model over. The parameters that require a gradient train, and no others; with `optim` None none
        does. weights: of a model whose parameters are on the meta device; each rank reads what it holds of them."""
        ...

    def backward(self, handle: Handle, loss: Tensor, *, last: bool) -> None:
        """Adds the gradient of `loss`; gradients SUM over micro-batches and all processes. Those that share a sequence
        have the same loss, and each the gradient through its own part of the sequence."""
        ...

    def step(self, handle: Handle) -> StepReport:
        """Clips, updates, clears; a non-finite norm skips the update, on all ranks together."""
        ...

    def gathered(self, handle: Handle) -> AbstractContextManager[PreTrainedModel]:
        """The model with whole parameters, for as long as the context lasts: one unshard around a generation."""
        ...

    def full_params(self, handle: Handle) -> Iterator[tuple[str, Tensor]]:
        """Whole parameters under their Hugging Face names, one at a time, in float32 as the optimizer steps them;
        adapters are merged into the weights that they change."""
        ...

    def tensors(self, handle: Handle, names: Container[str] | None = None) -> Iterator[tuple[str, Tensor]]:
        """The same as the model holds them, adapters apart; with `names` these alone."""
        ...

    def trained(self, handle: Handle) -> Iterator[Held]:
        """What this rank holds of the weights that train: live ranges, in float32, that the optimizer steps."""
        ...

    def state(self, handle: Handle) -> ModelState:
        """What this rank writes of the model and its optimizer: copies in host memory."""
        ...

    def load_state(self, handle: Handle, reader: StateReader) -> None:
        """Sets the model, its optimizer and its schedule to what any number of ranks has written, under any strategy
        and in any precision. Learning rate, betas and so on stay what this run's flags say.

        Asks no other rank for anything: one that cannot read its part leaves nobody waiting.
        """
        ...

    def use_loaded(self, handle: Handle) -> None:
        """All ranks together, when each has loaded its part: makes of that the weights that are computed with."""
        ...
