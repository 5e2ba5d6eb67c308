"""Optimizer and learning-rate schedule, the same objects for every strategy."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import get_scheduler

from lightrft.strategy.base import OptimArgs

MIN_LR_RATE = 0.1  # cosine_with_min_lr ends at a tenth of the peak


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


def make_scheduler(optimizer: torch.optim.Optimizer, args: OptimArgs) -> torch.optim.lr_scheduler.LRScheduler:
    """Warm-up, then the named schedule over all optimizer steps of the run; the first step already has a rate above 0.

    cosine_with_min_lr ends at a tenth of the peak.
    """
    name = "constant_with_warmup" if args.scheduler == "constant" else args.scheduler
    specific = {"min_lr_rate": MIN_LR_RATE} if name == "cosine_with_min_lr" else None
    scheduler = get_scheduler(
        name,
        optimizer,
        num_warmup_steps=args.warmup_steps,
        num_training_steps=args.total_steps,
        scheduler_specific_kwargs=specific,
    )
    place_schedule(scheduler, done=0)
    return scheduler


def steps_done(scheduler: torch.optim.lr_scheduler.LRScheduler) -> int:
    return scheduler.last_epoch - 1


def place_schedule(scheduler: torch.optim.lr_scheduler.LRScheduler, done: int) -> None:
    """As after `done` optimizer steps: step t, counted from 1, has the rate that the schedule gives for t.

    The library counts from 0, where a warm-up begins at rate 0 and so wastes a whole step.
    """
    scheduler.last_epoch = done + 1
    lambdas = scheduler.lr_lambdas  # pyright: ignore[reportAttributeAccessIssue]  (get_scheduler makes a LambdaLR)
    rates = [base * rate(scheduler.last_epoch) for base, rate in zip(scheduler.base_lrs, lambdas, strict=True)]
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = rates


HYPERPARAMETERS = ("lr", "initial_lr", "betas", "eps", "weight_decay")


@contextmanager
def flags_win(scheduler: torch.optim.lr_scheduler.LRScheduler) -> Iterator[None]:
    """Around the loading of an optimizer's state: learning rate, betas and so on stay what this run's flags say."""
    kept = [{name: group[name] for name in HYPERPARAMETERS if name in group} for group in _groups(scheduler)]
    yield
    for group, own in zip(_groups(scheduler), kept, strict=True):
        group.update(own)


def _groups(scheduler: torch.optim.lr_scheduler.LRScheduler) -> list[dict[str, Any]]:
    return scheduler.optimizer.param_groups


def save_schedule(scheduler: torch.optim.lr_scheduler.LRScheduler, folder: Path) -> None:
    (folder / "schedule.json").write_text(json.dumps({"optimizer_steps": steps_done(scheduler)}))


def load_schedule(scheduler: torch.optim.lr_scheduler.LRScheduler, folder: Path) -> None:
    place_schedule(scheduler, json.loads((folder / "schedule.json").read_text())["optimizer_steps"])
