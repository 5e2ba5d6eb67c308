"""When a checkpoint is due, and which flag has no say in it."""

from __future__ import annotations

import pytest

from lightrft.args import parse
from lightrft.loop.due import Due, told_of_saves


@pytest.mark.parametrize("every, step, due", [(3, 3, True), (3, 4, False), (None, 3, False), (1, 7, True)])
def test_due_by_steps(every, step, due):
    assert Due(every, 0)(step, 0.1, 0.2) is due


@pytest.mark.parametrize(
    "every, before, after, due",
    [(1, 0.9, 1.0, True), (1, 1.0, 1.1, False), (2, 0.9, 1.1, False), (2, 1.9, 2.3, True), (1, 0.5, 3.5, True)],
)
def test_due_by_episodes(every, before, after, due):
    assert Due(None, every)(1, before, after) is due


AGAIN = "saves after these steps already (an episode is {} steps)"


@pytest.mark.parametrize(
    "flags, prompts, told",
    [  # ten steps of four prompts
        ("--save_steps 3", 4, f"--save_steps 3 cannot matter: --save_interval 1 {AGAIN.format(1)}; --save_interval 0 "),
        ("--save_steps 3", 1, f"--save_steps 3 cannot matter: --save_interval 1 {AGAIN.format(0.25)}; --save_interval"),
        ("--save_steps 4", 8, f"--save_steps 4 cannot matter: --save_interval 1 {AGAIN.format(2)}; --save_interval 0 "),
        ("--save_steps 4 --save_interval 2", 8, "--save_steps 4 cannot matter: --save_interval 2 saves"),
        ("--save_interval 2 --save_steps 1", 8, f"--save_interval 2 cannot matter: --save_steps 1 {AGAIN.format(2)}"),
        ("--save_interval 6", 8, "--save_interval 6 cannot matter: the run ends after 10 steps, 5 episodes"),
        ("--save_steps 11", 16, "--save_steps 11 cannot matter: the run ends after 10 steps, 2.5 episodes"),
        ("--save_steps 11 --max_steps 10", 16, None),  # a rule tells it
        ("--save_steps 3", 8, None),
        ("--save_steps 3", 5, None),  # episodes end in the steps 2, 3, 4, 5, 7, 8, 9 and 10
        ("--save_steps 1 --save_interval 0", 4, None),
        ("--save_interval 5", 8, None),
        ("--save_steps 3 --dynamic_sampling", 4, None),
        ("", 400, None),
    ],
)
def test_a_flag_that_saves_nothing_of_its_own_is_told(flags, prompts, told):
    base = "--pretrain x --prompt_data x --reward_fn exact --save_path x --rollout_batch_size 4 --train_batch_size 16"
    found = told_of_saves(parse([*base.split(), *flags.split()]), 10, 4, prompts)
    assert (told is None) == (not found) and all(line.startswith(told) for line in found), found
