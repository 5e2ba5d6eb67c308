"""What the flags ask of the optimizer: steps of the run, and those of its warm-up."""

from __future__ import annotations

import pytest

from lightrft.args import parse
from lightrft.recipe import optim_args

BASE = "--pretrain tiny --prompt_data a.jsonl --reward_fn exact --save_path out --rollout_batch_size 4"
BASE += " --n_samples_per_prompt 4 --train_batch_size 8 --max_epochs 2"  # four optimizer steps a turn


@pytest.mark.parametrize(
    ("flags", "turns", "warmup"),
    [
        ("--lr_warmup_ratio 0.3", 2, 3),  # 2.4 of 8: a share of a step is a whole one
        ("--lr_warmup_ratio 0.07", 25, 7),  # 0.07 * 100 is 7.000000000000001 for a computer
        ("--lr_warmup_ratio 0", 2, 0),
        ("--lr_warmup_ratio 1", 2, 8),
        ("", 2, 1),
        ("--lr_warmup_steps 5 --lr_warmup_ratio 1", 2, 5),
        ("--lr_warmup_steps 0", 2, 0),
    ],
)
def test_warm_up_is_counted_in_optimizer_steps(flags, turns, warmup):
    made = optim_args(parse(f"{BASE} {flags}".split()), turns)
    assert (made.total_steps, made.warmup_steps) == (4 * turns, warmup)
