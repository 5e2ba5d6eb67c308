"""The default strategy: DeepSpeed ZeRO."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Container, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lightrft.errors import Refused
from lightrft.ranks.base import World
from lightrft.ranks.collectives import Collectives
from lightrft.ranks.launch import when_leaving
from lightrft.strategy import zero_state
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
from lightrft.strategy.optimizer import make_optimizer, make_scheduler
from lightrft.strategy.sharding import whole
from lightrft.strategy.state import ModelState, StateReader

COMPUTE = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LINEAR = nn.functional.linear  # torch's, in whose place stage 3 puts one of its own for the whole process
BUCKET = 500_000_000  # DeepSpeed's own: parameters that stage 3 makes room for at once, also for a model with far fewer


def _deepspeed() -> Any:
    try:
        import deepspeed
        import deepspeed.ops
        import deepspeed.runtime.bf16_optimizer
    except ImportError as error:
        raise Refused("DeepSpeed is not installed: `pip install deepspeed==0.19.8`, or train with --fsdp") from error
    # Its shared-memory collectives would be compiled for over a minute at the first start, to speed up gloo alone.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    # Its bfloat16 optimizer collects all garbage four times when it is made, to print how much memory there is.
    deepspeed.runtime.bf16_optimizer.see_memory_usage = lambda *_, **__: None
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    logging.getLogger("DeepSpeed").addFilter(_is_news)
    # Deprecated collectives, which it calls at every layer.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    return deepspeed


def _give_linear_back() -> None:
    """Its own rounds otherwise in 16 bits: the numbers of a run would depend on the runs before it in the process."""
    nn.functional.linear = LINEAR


def _is_news(record: logging.LogRecord) -> bool:
    """SGD is one that it calls untested."""
    return "untested optimizer" not in record.getMessage()


def effective_stage(zero_stage: int, world_size: int) -> int:
    """The stage that runs; see DeepSpeedStrategy."""
    return 1 if zero_stage == 2 and world_size == 1 else zero_stage


class DeepSpeedStrategy:
    """ZeRO stage 1, 2 or 3; accumulation boundaries are set by hand, so DeepSpeed never divides the loss.

    On one process stage 2 has no gradients to partition, but would still copy those of every micro-batch through its
    buckets, which doubled the time of a step: stage 1 runs in its place.

    adam_offload: masters, the sum of gradients and the optimizer's state are kept in host memory, and the step is made
    there, by torch's AdamW: DeepSpeed's own would be compiled at the first start. zpg: of stage 3, neighbours that
    share a second copy of the weights from a forward pass to the step (ZeRO++, arXiv:2306.10209); 1 = there is none.
    overlap_comm: None = DeepSpeed's own choice on GPUs, which stage 3 makes, and nothing to overlap elsewhere.
    frozen: how a model without an optimizer is held.
    """

    def __init__(
        self,
        world: World,
        precision: Precision,
        zero_stage: int,
        *,
        adam_offload: bool = False,
        zpg: int = 1,
        overlap_comm: bool | None = None,
        frozen: Frozen | None = None,
    ) -> None:
        self.world, self.ranks, self.precision = world, Collectives(world), precision.compute
        self.stage = effective_stage(zero_stage, world.size)
        self.adam_offload, self.zpg, self.frozen = adam_offload, zpg, frozen or Frozen()
        own_choice = self.stage == 3 and world.device.type == "cuda"
        self.overlap_comm = own_choice if overlap_comm is None else overlap_comm
        self.deepspeed = _deepspeed()
        when_leaving(self._forget_groups)
        when_leaving(_give_linear_back)
        self.deepspeed.utils.groups._ZERO_PARAM_INTRA_PARALLEL_GROUP = None  # another strategy's, of its own --zpg

    def _forget_groups(self) -> None:
        """DeepSpeed keeps groups of its own, which would outlive the process group that they belong to."""
        if self.deepspeed.comm.is_initialized():
            self.deepspeed.comm.destroy_process_group()

    def _config(self, optim: OptimArgs, parameters: int) -> dict[str, Any]:
        return {
            "train_micro_batch_size_per_gpu": 1,  # only products are checked; real sizes are the trainer's
            "gradient_accumulation_steps": 1,
            "gradient_clipping": optim.max_norm,  # unset, DeepSpeed clips at 1.0
            "steps_per_print": 1 << 30,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "zero_optimization": {
                "stage": self.stage,
                "overlap_comm": self.overlap_comm,
                "reduce_bucket_size": min(BUCKET, parameters),
                "stage3_param_persistence_threshold": 0,
                "zero_hpz_partition_size": self.zpg,
                **self._offload(),
            },
            "bf16": {"enabled": self.precision == "bf16", "check_grad_overflow": True},
            "fp16": {"enabled": self.precision == "fp16"},
            # unset, micro-batches and ranks are added up in 16 bits, where each sum rounds
            "data_types": {"grad_accum_dtype": "fp32"},
            "communication_data_type": "fp32",
        }

    def _offload(self) -> dict[str, Any]:
        if not self.adam_offload:
            return {}
        return {"offload_optimizer": {"device": "cpu", "pin_memory": self.world.device.type == "cuda"}}

    def prepare(self, model: PreTrainedModel, optim: OptimArgs | None, weights: Weights | None = None) -> Handle:
        if optim is None:
            return self.frozen.prepare(model, self.world, None, weights)
        if weights is not None:
            self._partition_empty(model)
        optimizer = make_optimizer(model.parameters(), optim)
        scheduler = make_scheduler(optimizer, optim)
        finer = self._finer_than_computed(model) if weights is None else {}
        sizes = [getattr(p, "ds_numel", p.numel()) for p in model.parameters() if p.requires_grad]
        config = self._config(optim, sum(sizes))
        engine, *_ = self.deepspeed.initialize(model=model, optimizer=optimizer, config=config)
        engine.eval()  # initialize switches dropout on
        if self.precision == "fp16":
            # At the smallest scale it would raise; what to do about skipped steps is for the update to say.
            engine.optimizer.loss_scaler.raise_error_at_min_scale = False
        handle = Handle(engine, model, engine.optimizer, scheduler, optim)
        zero_state.set_masters(handle, self.world, finer)
        frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
        handle.finer = {name: value for name, value in finer.items() if name in frozen}
        if weights is not None:
            zero_state.set_weights(handle, self.world, weights)
        return handle

    def _partition_empty(self, model: PreTrainedModel) -> None:
        """By stage 3, before it would want whole parameters. Of each, memory is touched for this rank's part alone."""
        init, made = self.deepspeed.zero.Init(dtype=COMPUTE[self.precision]), {}
        init._enable_mem_efficient_linear()  # as it does itself for a model that is there
        for module in model.modules():
            for name, given in module._parameters.items():
                if given is not None and given not in made:  # a tied one has two names
                    value = torch.empty_like(given, device=self.world.device) if given.is_meta else given.detach()
                    made[given] = nn.Parameter(value.to(COMPUTE[self.precision]), given.requires_grad)
                    init._convert_to_deepspeed_param(made[given])
                    made[given].partition()
                module._parameters[name] = made.get(given)

    def _finer_than_computed(self, model: PreTrainedModel) -> dict[str, Tensor]:
        """Float32 weights, kept in host memory while DeepSpeed makes the masters of them: it rounds them before. Of
        those that do not train it makes none."""
        if self.precision == "fp32":
            return {}
        found = {name: p for name, p in model.named_parameters() if p.dtype == torch.float32}
        return {name: p.detach().to("cpu", copy=True) for name, p in found.items()}

    def backward(self, handle: Handle, loss: Tensor, *, last: bool) -> None:
        handle.module.set_gradient_accumulation_boundary(last)
        entered = self.deepspeed.runtime.zero.parameter_offload.FWD_MODULE_STACK
        depth = len(entered)
        handle.module.backward(loss * self.world.size)  # ZeRO averages over ranks, our losses are shares of a sum
        del entered[depth:]  # layers that were computed again are left before their end, which stage 3 does not see

    def step(self, handle: Handle) -> StepReport:
        engine, lr, scale = handle.module, handle.scheduler.get_last_lr()[0], self._scale(handle)
        engine.step()
        norm = float(engine.get_global_grad_norm())
        skipped = bool(getattr(handle.optimizer, "overflow", False))
        if skipped and self.adam_offload and self.stage < 3:
            handle.optimizer.averaged_gradients.clear()  # it would add the next ones to them
        if not skipped:
            handle.scheduler.step()
        return StepReport(norm, lr, skipped, scaling=skipped and self._scale(handle) < scale)

    def _scale(self, handle: Handle) -> float:
        """Of the loss, which is above 1 in float16 alone."""
        return float(getattr(handle.optimizer, "loss_scale", 1.0))

    @contextmanager
    def gathered(self, handle: Handle) -> Iterator[PreTrainedModel]:
        with self._whole(handle):
            yield handle.model

    def _whole(self, handle: Handle) -> Any:
        if self.stage < 3 or handle.optim is None:
            return nullcontext()
        return self._gathered_stage3(handle)

    @contextmanager
    def _gathered_stage3(self, handle: Handle) -> Iterator[None]:
        """Stage 3 fetches and frees parameters in module hooks; they are off while everything is gathered."""
        offload = handle.optimizer.parameter_offload
        with self.deepspeed.zero.GatheredParameters(list(handle.model.parameters())):
            self._remove_hooks(offload)
            try:
                yield
            finally:
                self._restore_hooks(offload)

    def _remove_hooks(self, offload: Any) -> None:
        for parameter in offload.module.parameters():
            parameter.ds_active_sub_modules.clear()  # they are named by ids that change with the next registration
        for hook in [*offload.forward_hooks, *offload.backward_hooks]:
            hook.remove()
        offload.forward_hooks, offload.backward_hooks = [], []
        # it compares the order of modules with the other ranks', which may make fewer passes
        offload.fwd_pre_hook.remove()

    def _restore_hooks(self, offload: Any) -> None:
        reset_step = offload.get_param_coordinator().reset_step
        offload.fwd_pre_hook = offload.module.register_forward_pre_hook(lambda *_: reset_step())
        offload._register_deepspeed_module(offload.module)  # and the order of modules is traced afresh

    def full_params(self, handle: Handle) -> Iterator[tuple[str, Tensor]]:
        return without_adapters(handle, self.tensors(handle))

    def tensors(self, handle: Handle, names: Container[str] | None = None) -> Iterator[tuple[str, Tensor]]:
        for name, value in named_tensors(handle.model):
            if names is not None and name not in names:
                continue
            if name in handle.finer:
                yield name, handle.finer[name].to(value.device)
                continue
            if handle.optim is not None and self.precision != "fp32" and value.requires_grad:
                yield name, self.deepspeed.utils.safe_get_full_fp32_param(value)
                continue
            sharded = self.stage == 3 and hasattr(value, "ds_id")
            with self.deepspeed.zero.GatheredParameters([value], enabled=sharded):
                yield name, value.detach().clone() if sharded else whole(value)

    def trained(self, handle: Handle) -> Iterator[Held]:
        return zero_state.trained(handle, self.world)

    def state(self, handle: Handle) -> ModelState:
        return zero_state.read_state(handle, self.world)

    def load_state(self, handle: Handle, reader: StateReader) -> None:
        zero_state.set_state(handle, self.world, reader)

    def use_loaded(self, handle: Handle) -> None:
        zero_state.use_masters(handle, self.world)
