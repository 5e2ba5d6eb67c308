"""Optimizer and learning-rate schedule, the same objects for every strategy."""

from __future__ import annotations

from collections.abc import Iterable

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
    """Warm-up from 0, then the named schedule over all optimizer steps of the run."""
    name = "constant_with_warmup" if args.scheduler == "constant" else args.scheduler
    specific = {"min_lr_rate": MIN_LR_RATE} if name == "cosine_with_min_lr" else None
    return get_scheduler(
        name,
        optimizer,
        num_warmup_steps=args.warmup_steps,
        num_training_steps=args.total_steps,
        scheduler_specific_kwargs=specific,
    )
