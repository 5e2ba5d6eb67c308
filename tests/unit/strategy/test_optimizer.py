from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from lightrft.args.field import RECORD
from lightrft.args.groups.training import TrainingArgs
from lightrft.strategy.base import Handle, OptimArgs
from lightrft.strategy.optimizer import make_optimizer, make_scheduler, place_schedule, steps_done, take_step

ARGS = OptimArgs("adamw", 0.5, (0.9, 0.99), 1e-8, 0.1, 1.0, "constant", warmup_steps=0, total_steps=10)
PEAK = ARGS.learning_rate


def rates(scheduler, warmup=0, total=10, steps=None):
    """The rate of each of `steps` optimizer steps (all of the run), as shares of the peak."""
    args = replace(ARGS, scheduler=scheduler, warmup_steps=warmup, total_steps=total)
    optimizer = make_optimizer([torch.nn.Parameter(torch.ones(2))], args)
    made, found = make_scheduler(optimizer, args), []
    for _ in range(steps or total):
        assert made.get_last_lr() == [optimizer.param_groups[0]["lr"]]
        found.append(made.get_last_lr()[0] / PEAK)
        optimizer.step()
        made.step()
    return found


ROOT = math.sqrt(0.5)
BY_HAND = [  # schedule, W, T, rates of steps 1 to T
    ("constant", 0, 3, [1, 1, 1]),
    ("constant", 4, 6, [0.25, 0.5, 0.75, 1, 1, 1]),
    ("linear", 0, 4, [1, 0.75, 0.5, 0.25]),
    ("linear", 2, 6, [0.5, 1, 1, 0.75, 0.5, 0.25]),
    ("cosine", 0, 4, [1, (1 + ROOT) / 2, 0.5, (1 - ROOT) / 2]),
    ("cosine", 1, 3, [1, 1, 0.5]),
    ("cosine_with_min_lr", 0, 4, [1, 0.1 + 0.45 * (1 + ROOT), 0.55, 0.1 + 0.45 * (1 - ROOT)]),
    ("cosine_with_min_lr", 3, 5, [1 / 3, 2 / 3, 1, 1, 0.55]),
]
SCHEDULES = ("constant", "linear", "cosine", "cosine_with_min_lr")


@pytest.mark.parametrize("scheduler, warmup, total, expected", BY_HAND)
def test_rates_by_hand(scheduler, warmup, total, expected):
    assert rates(scheduler, warmup, total) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("scheduler", SCHEDULES)
def test_no_step_of_any_schedule_has_rate_0(scheduler):
    """Runs of one step, of warm-up alone, of less than the warm-up, and longer than was planned."""
    (flag,) = (field.metadata[RECORD] for field in fields(TrainingArgs) if field.name == "lr_scheduler")
    assert flag.choices == SCHEDULES
    assert rates(scheduler, 0, 1) == rates(scheduler, 1, 1) == [1]
    assert rates(scheduler, 3, 3) == pytest.approx([1 / 3, 2 / 3, 1])
    assert rates(scheduler, 8, 2) == pytest.approx([1 / 8, 2 / 8])
    for warmup in range(6):
        found = rates(scheduler, warmup, 5, steps=9)
        assert min(found) > 0 and max(found) <= 1
        assert found[warmup:] == sorted(found[warmup:], reverse=True), "it never rises again after the warm-up"
        assert len(set(found[max(warmup, 5) :])) == 1, "beyond what was planned it stays"


def test_a_resumed_schedule_goes_on_with_the_rate_that_the_flags_say():
    args = replace(ARGS, warmup_steps=4)
    resumed = make_scheduler(make_optimizer([torch.nn.Parameter(torch.ones(2))], args), args)
    place_schedule(resumed, done=2)
    assert resumed.get_last_lr() == [0.375] and resumed.optimizer.param_groups[0]["lr"] == 0.375
    assert steps_done(resumed) == 2


@pytest.mark.parametrize("scheduler", SCHEDULES)
@pytest.mark.parametrize("done", (1, 3, 4, 9))
def test_a_resumed_schedule_goes_on_as_if_uninterrupted(scheduler, done):
    args = replace(ARGS, scheduler=scheduler, warmup_steps=3)
    resumed = make_scheduler(make_optimizer([torch.nn.Parameter(torch.ones(2))], args), args)
    place_schedule(resumed, done)
    found = []
    for _ in range(10 - done):
        found.append(resumed.get_last_lr()[0] / PEAK)
        resumed.optimizer.step()
        resumed.step()
    assert found == pytest.approx(rates(scheduler, warmup=3)[done:], rel=1e-12)


def test_adamw_by_hand():
    parameter = torch.nn.Parameter(torch.tensor([2.0, -1.0]))
    optimizer = make_optimizer([parameter], ARGS)
    parameter.grad = torch.tensor([3.0, -0.2])
    optimizer.step()
    # first step: decay by lr * 0.1, then lr * sign(gradient), as m / sqrt(v) = 1 after the bias correction
    assert parameter.tolist() == pytest.approx([2 * 0.95 - 0.5, -1 * 0.95 + 0.5], rel=1e-6)  # float32
    parameter.grad = torch.tensor([1.0, -0.2])
    before = parameter.tolist()[0]
    optimizer.step()
    m, v = (0.9 * 0.1 * 3 + 0.1 * 1) / (1 - 0.81), (0.99 * 0.01 * 9 + 0.01 * 1) / (1 - 0.9801)
    assert parameter.tolist()[0] == pytest.approx(before * 0.95 - 0.5 * m / v**0.5, rel=1e-5)  # float32, cancellation


def test_epsilon_reaches_the_optimizer():
    optimizer = make_optimizer([torch.nn.Parameter(torch.ones(1))], replace(ARGS, epsilon=1e-3))
    assert optimizer.param_groups[0]["eps"] == 1e-3


def test_sgd_by_hand_and_frozen_parameters_stay_out():
    parameter, frozen = torch.nn.Parameter(torch.tensor([2.0])), torch.nn.Parameter(torch.ones(1), requires_grad=False)
    optimizer = make_optimizer([frozen, parameter], replace(ARGS, name="sgd"))
    assert [group["params"] for group in optimizer.param_groups] == [[parameter]]
    parameter.grad = torch.tensor([3.0])
    optimizer.step()
    assert parameter.item() == pytest.approx(2 - 0.5 * (3 + 0.1 * 2), rel=1e-6)  # float32


@pytest.mark.parametrize("most", (0.0, 4.0, 4.999999, 5.0, 5.000001, 6.0))
def test_a_step_clips_as_torch_does(most: float):
    """A gradient of length 5, to the bit; rate 1, so the weights are minus what is left of it."""
    args = replace(ARGS, name="sgd", learning_rate=1.0, weight_decay=0.0, max_norm=most)
    model: Any = torch.nn.ParameterDict({"a": torch.zeros(1), "b": torch.zeros(1)})
    optimizer = make_optimizer(model.parameters(), args)
    other = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    for parameter, twin, value in zip(model.parameters(), other, (3.0, 4.0), strict=True):
        parameter.grad, twin.grad = torch.tensor([value]), torch.tensor([value])
    torch.nn.utils.clip_grad_norm_(other, most or math.inf)
    report = take_step(Handle(model, model, optimizer, make_scheduler(optimizer, args), args))
    assert [-float(p) for p in model.parameters()] == [float(p.grad) for p in other if p.grad is not None]
    assert (report.grad_norm, report.skipped) == (5.0, False)
    assert most != 4.0 or -float(model["b"]) == pytest.approx(3.2, rel=1e-6)
