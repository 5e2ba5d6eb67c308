from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from lightrft.strategy.base import OptimArgs
from lightrft.strategy.optimizer import flags_win, make_optimizer, make_scheduler, place_schedule, steps_done

ARGS = OptimArgs("adamw", 0.5, (0.9, 0.99), 1e-8, 0.1, 1.0, "constant", warmup_steps=0, total_steps=10)


def rates(scheduler, warmup=0, total=10):
    args = replace(ARGS, scheduler=scheduler, warmup_steps=warmup, total_steps=total)
    optimizer = make_optimizer([torch.nn.Parameter(torch.ones(2))], args)
    made, found = make_scheduler(optimizer, args), []
    for _ in range(total):
        found.append(made.get_last_lr()[0])
        optimizer.step()
        made.step()
    return found


def test_warm_up_rises_and_then_stays_and_wastes_no_step():
    # products of two float64
    assert rates("constant", warmup=4) == pytest.approx([0.125, 0.25, 0.375] + [0.5] * 7, rel=1e-12)
    assert rates("constant") == [0.5] * 10


def test_a_resumed_schedule_goes_on_with_the_rate_that_the_flags_say():
    args = replace(ARGS, warmup_steps=4)
    resumed = make_scheduler(make_optimizer([torch.nn.Parameter(torch.ones(2))], args), args)
    place_schedule(resumed, done=2)
    assert resumed.get_last_lr() == [0.375] and resumed.optimizer.param_groups[0]["lr"] == 0.375
    assert steps_done(resumed) == 2


def test_loading_an_optimizer_leaves_the_hyperparameters_to_the_flags():
    before = make_optimizer([torch.nn.Parameter(torch.ones(2))], ARGS)
    now = replace(ARGS, learning_rate=0.25, betas=(0.5, 0.6), epsilon=1e-3, weight_decay=0.0)
    optimizer = make_optimizer([torch.nn.Parameter(torch.ones(2))], now)
    with flags_win(make_scheduler(optimizer, now)):
        optimizer.load_state_dict(before.state_dict())
    group = optimizer.param_groups[0]
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (0.25, (0.5, 0.6), 1e-3, 0.0)


def test_cosine_with_min_lr_goes_from_the_peak_to_a_tenth_of_it():
    found = rates("cosine_with_min_lr", warmup=2, total=10)
    wanted = [0.5 * (0.1 + 0.9 * (1 + math.cos(math.pi * i / 8)) / 2) for i in range(9)]
    assert found == pytest.approx([0.25, *wanted], rel=1e-12)
    assert found[-1] == pytest.approx(0.05, rel=1e-12)


@pytest.mark.parametrize("name, last", [("linear", 0.0), ("cosine", 0.0)])
def test_other_schedules_end_at_zero(name, last):
    found = rates(name)
    assert 0.4 < found[0] < 0.5 and found[-1] == pytest.approx(last, abs=1e-12) and found == sorted(found, reverse=True)


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
