"""What may happen to a handle between two passes or two steps, and must change nothing; on one process or several.

As a script under torchrun, `between_steps.py FOLDER`, it makes every check ON_TWO processes.
"""

from __future__ import annotations

from pathlib import Path

import torch
from deepspeed.accelerator import get_accelerator
from launch import run_rank
from policies import ALONE, STRATEGIES, arguments, largest_difference, load, own_strategy, save, small_model
from torch import Tensor

from lightrft.ranks.launch import join_world, leave_world
from lightrft.strategy.base import Handle, OptimArgs, StepReport, Strategy

ADAM = OptimArgs("adamw", 1e-2, (0.9, 0.99), 1e-8, 0.01, 0.5, "linear", warmup_steps=2, total_steps=10)
IDS = torch.tensor([[5, 7, 9, 4], [6, 15, 8, 11]])
COLUMNS = [
    (strategy, precision)
    for strategy in STRATEGIES
    for precision in ("fp32", "bf16", "fp16")
    if precision != "fp16" or "--fsdp" not in strategy  # refused: it has no loss scaling
] + [(ALONE, "fp32")]
ON_TWO = [(s, p) for s, p in COLUMNS if "offload" not in s and s != ALONE and (p != "fp16" or s == "--zero_stage 2")]
ON_TWO += [("--fsdp --fsdp_reshard step", precision) for precision in ("fp32", "bf16")]


def prepared(strategy: Strategy, seed: int = 0) -> Handle:
    return strategy.prepare(small_model(seed).to(strategy.world.device), ADAM)


def add_gradient(strategy: Strategy, handle: Handle, rows: slice, *, last: bool, scale: float = 1.0) -> None:
    """Of a loss so small that float16 holds its gradient at the first scale of 2^16."""
    logits = handle.module(input_ids=IDS[rows].to(strategy.world.device), use_cache=False).logits
    strategy.backward(handle, scale / 256 * -logits.float().log_softmax(-1)[..., 5].mean(), last=last)


def step(strategy: Strategy, handle: Handle, scale: float = 1.0) -> StepReport:
    add_gradient(strategy, handle, slice(0, 1), last=False, scale=scale)
    add_gradient(strategy, handle, slice(1, 2), last=True)
    return strategy.step(handle)


def parameters(strategy: Strategy, handle: Handle) -> dict[str, Tensor]:
    return {name: value.detach().float().cpu().clone() for name, value in strategy.full_params(handle)}


def equal(strategy: Strategy, left: Handle, right: Handle) -> bool:
    return largest_difference(parameters(strategy, left), parameters(strategy, right)) == 0


def a_loan_inside_a_step(strategy: Strategy, folder: Path) -> None:
    """A forward pass with whole parameters, and parameters handed out twice, between two backward passes of a step."""
    disturbed, left_alone = prepared(strategy), prepared(strategy)
    start = parameters(strategy, left_alone)
    for _ in range(3):
        add_gradient(strategy, disturbed, slice(0, 1), last=False)
        with torch.no_grad(), strategy.gathered(disturbed) as model:
            model(input_ids=IDS.to(strategy.world.device))
        first, second = (parameters(strategy, disturbed) for _ in range(2))
        assert largest_difference(first, second) == 0
        add_gradient(strategy, disturbed, slice(1, 2), last=True)
        assert strategy.step(disturbed) == step(strategy, left_alone)
        assert equal(strategy, disturbed, left_alone)
    assert largest_difference(parameters(strategy, disturbed), start) > 1e-3


def a_look_before_the_step(strategy: Strategy, folder: Path) -> None:
    """A forward pass between the last backward pass and its step, as the parity gate makes it."""
    disturbed, left_alone = prepared(strategy), prepared(strategy)
    for _ in range(2):
        add_gradient(strategy, disturbed, slice(0, 1), last=False)
        add_gradient(strategy, disturbed, slice(1, 2), last=True)
        with torch.no_grad():
            disturbed.module(input_ids=IDS.to(strategy.world.device), use_cache=False)
        assert strategy.step(disturbed) == step(strategy, left_alone)
        assert equal(strategy, disturbed, left_alone)


def a_checkpoint_after_a_skipped_step(strategy: Strategy, folder: Path) -> None:
    """Moments, schedule and the loss's scale are those of the run that saved, shown by the next steps' bits."""
    handle, other = prepared(strategy), prepared(strategy, seed=9)
    assert not step(strategy, handle).skipped
    assert step(strategy, handle, float("nan")).skipped
    save(strategy, handle, folder)
    load(strategy, other, folder)
    assert equal(strategy, handle, other)
    for _ in range(2):
        assert step(strategy, handle) == step(strategy, other)
        assert equal(strategy, handle, other)


CHECKS = [a_loan_inside_a_step, a_look_before_the_step, a_checkpoint_after_a_skipped_step]


def main(folder: str) -> None:
    torch.set_num_threads(1)
    world = join_world()
    get_accelerator().is_fp16_supported = lambda: True
    for number, (flags, precision) in enumerate(ON_TWO):
        for check in CHECKS:
            place = Path(folder) / f"{check.__name__}-{number}"
            place.mkdir(exist_ok=True)
            try:
                check(own_strategy(arguments(flags), world, precision), place)
            except Exception as error:
                raise AssertionError(f"{check.__name__} {flags} {precision}") from error
    leave_world()


if __name__ == "__main__":
    run_rank(main)
