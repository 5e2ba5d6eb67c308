"""Optimizer and learning-rate schedule, the same objects for every strategy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import get_scheduler

from lightrft.strategy.base import Handle, OptimArgs, StepReport
from lightrft.strategy.gradient_norm import gradient_norm
from lightrft.strategy.masters import round_masters

MOMENTS = ("exp_avg", "exp_avg_sq")  # AdamW's, as torch and DeepSpeed call them
MIN_LR_RATE = 0.1  # of the peak: where cosine_with_min_lr leads


def make_optimizer(parameters: Iterable[torch.nn.Parameter], args: OptimArgs) -> torch.optim.Optimizer:
    """AdamW (fused kernels) or plain SGD."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if args.name == "sgd":
        return torch.optim.SGD(trained, lr=args.learning_rate, weight_decay=args.weight_decay)
    return torch.optim.AdamW(
        trained,
        lr=args.learning_rate,
        betas=args.betas,
        eps=args.epsilon,
        weight_decay=args.weight_decay,
        fused=True,
    )


def take_step(handle: Handle, step: Callable[[torch.optim.Optimizer], None] | None = None) -> StepReport:
    """Clips, updates, clears; a norm that is not finite skips the update. step: the optimizer's own, unless given."""
    assert handle.optim is not None
    parameters = list(handle.masters.values() or handle.model.parameters())
    norm = gradient_norm([p.grad for p in parameters if p.grad is not None])
    lr, skipped = handle.scheduler.get_last_lr()[0], not bool(norm.isfinite())
    if not skipped:
        _clip(parameters, norm, handle.optim.max_norm)
        handle.optimizer.step() if step is None else step(handle.optimizer)
        round_masters(handle)
        handle.scheduler.step()
    handle.optimizer.zero_grad(set_to_none=True)
    return StepReport(float(norm), lr, skipped)


def _clip(parameters: Sequence[Tensor], norm: Tensor, most: float) -> None:
    """torch's, which multiplies also where that is by 1: a trip of all gradients through memory."""
    if most > 0 and bool(most / (norm + 1e-6) < 1):
        nn.utils.clip_grads_with_norm_(parameters, most, norm)


def step_from_host(optimizer: torch.optim.Optimizer) -> None:
    """A step of an optimizer whose state is kept in host memory: each parameter's visits the device in its turn.

    The numbers are those of a step without; the device holds the state of one parameter at a time.
    """
    (group,) = optimizer.param_groups
    trained = group["params"]
    for parameter in (parameter for parameter in trained if parameter.grad is not None):
        state, group["params"] = optimizer.state[parameter], [parameter]
        homes = {name: value for name, value in state.items() if value.dim() and value.device.type == "cpu"}
        state |= {name: home.to(parameter.device, non_blocking=True) for name, home in homes.items()}
        optimizer.step()
        # the count of steps, which has no dimension, stays
        state |= {name: _homecoming(value, homes.get(name)) for name, value in state.items() if value.dim()}
    group["params"] = trained


@torch.no_grad()
def _homecoming(value: Tensor, home: Tensor | None) -> Tensor:
    """The value in the host memory that was its home before; a new home is pinned, for a GPU to copy to it."""
    if home is not None:
        return home.copy_(value)
    home = value.to("cpu")
    if value.device.type == "cuda":
        part = home.to_local() if isinstance(home, DTensor) else home
        part.data = part.pin_memory()
    return home


def make_scheduler(optimizer: torch.optim.Optimizer, args: OptimArgs) -> torch.optim.lr_scheduler.LRScheduler:
    """Warm-up over W steps, then the named schedule over the other T - W of the run; no step has a rate of 0.

    Step t, counted from 1, has the rate t / W up to t = W, and then what the library's schedule has after t - 1 - W of
    T - W steps. (By itself the library begins a warm-up at 0, and `linear` and `cosine` end there.) Steps beyond T,
    which the plan did not foresee, stay at the last rate. cosine_with_min_lr falls towards a tenth of the peak.
    """
    warmup, after = args.warmup_steps, max(args.total_steps - args.warmup_steps, 1)
    specific = {"min_lr_rate": MIN_LR_RATE} if args.scheduler == "cosine_with_min_lr" else None
    scheduler: Any = get_scheduler(
        args.scheduler,
        optimizer,
        num_warmup_steps=0,
        num_training_steps=after,
        scheduler_specific_kwargs=specific,
    )
    (course,) = scheduler.lr_lambdas  # get_scheduler makes a LambdaLR; the optimizer has one group

    def rate(done: int) -> float:
        return (done + 1) / warmup if done < warmup else course(min(done - warmup, after - 1))

    scheduler.lr_lambdas = [rate]
    place_schedule(scheduler, done=0)
    return scheduler


def steps_done(scheduler: torch.optim.lr_scheduler.LRScheduler) -> int:
    return scheduler.last_epoch


def place_schedule(scheduler: torch.optim.lr_scheduler.LRScheduler, done: int) -> None:
    """As after `done` optimizer steps."""
    scheduler.last_epoch = done
    lambdas = scheduler.lr_lambdas  # pyright: ignore[reportAttributeAccessIssue]  (get_scheduler makes a LambdaLR)
    rates = [base * rate(done) for base, rate in zip(scheduler.base_lrs, lambdas, strict=True)]
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = rates


def fresh_state(optimizer: torch.optim.Optimizer, parameter: Tensor, *, on_host: bool = False) -> dict[str, Any]:
    """Of a parameter, as the optimizer's first step makes it before it updates: moments of 0.

    on_host: moments have their home in host memory, as `step_from_host` leaves them.
    """
    if isinstance(optimizer, torch.optim.SGD):
        return {}
    made = {kind: torch.zeros_like(parameter, requires_grad=False) for kind in MOMENTS}
    step = torch.zeros((), device=parameter.device)
    return {"step": step, **{kind: _homecoming(value, None) if on_host else value for kind, value in made.items()}}
