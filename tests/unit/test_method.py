"""The lines of the plan that name the mathematics."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lightrft.algorithms.estimator import load_estimator
from lightrft.args import parse
from lightrft.method import method, weighted_rewards

BASE = "--pretrain tiny --prompt_data a.jsonl --reward_fn exact --save_path out "
BASE += "--rollout_batch_size 4 --train_batch_size 16"
ON_POLICY = "ratio exactly 1, so no clip acts"
USUAL = "loss reduced by seq-mean-token-mean, token_truncate weights up to 2"


def lines(text: str, steps: int = 100) -> list[str]:
    return list(method(parse(f"{BASE} {text}".split()), steps))


def test_the_defaults_of_grpo():
    assert lines("") == [
        "adamw at 5e-07, falling to a tenth by cosine after 3 of warm-up, over 100 optimizer steps; gradients clipped "
        "to norm 1",
        "0.001 x KL to the reference (k3) in the loss, fixed",
        f"{ON_POLICY}; {USUAL}",
    ]


@pytest.mark.parametrize(
    "text, number, line",
    [
        ("--lr_scheduler constant --lr_warmup_steps 0 --max_norm 0 --optimizer sgd --l2 0.1", 0,
         "sgd at 5e-07, constant, over 100 optimizer steps; gradients not clipped, weight decay 0.1"),
        ("--lr_scheduler linear --train_batch_size 8 --max_epochs 2", 0,
         "adamw at 5e-07, falling to 0 in a line after 12 of warm-up, over 400 optimizer steps; gradients clipped to "
         "norm 1"),
        ("--advantage_estimator gae --freezing_actor_steps 20 --lr_warmup_ratio 0", 0,
         "adamw at 5e-07 (critic 9e-06), falling to a tenth by cosine, over 80 optimizer steps; gradients clipped to "
         "norm 1"),
        ("--init_kl_coef 0", 1, "no KL, no reference model"),
        ("--init_kl_coef 0.04 --kl_target 0.05", 1, "0.04 x KL to the reference (k3) in the loss, adapted to 0.05"),
        ("--advantage_estimator reinforce", 1, "0.001 x KL to the reference (k1) in the reward, fixed"),
        ("--advantage_estimator cpgd", 1, "0.001 x drift from the old policy in the loss, adapted to 0.01"),
        ("--advantage_estimator cpgd --use_kl_loss", 1,
         "0.001 x drift from the old policy in the loss, adapted to 0.01, and 0.001 x KL to the reference (k3) in the "
         "loss"),
        ("--advantage_estimator cpgd --init_kl_coef 0", 1, "no drift term: --init_kl_coef is 0"),
        ("--max_epochs 2 --dual_clip 3", 2,
         f"clips of a token's ratio 0.2 below and 0.3 above, 3 where the advantage is negative; {USUAL}"),
        ("--advantage_estimator cpgd --max_epochs 2 --dual_clip 3", 2,
         f"clips of a token's ratio 0.2 below and 0.2 above; {USUAL}"),
        ("--advantage_estimator gspo --max_epochs 2 --dual_clip 3 --loss_agg_mode token-mean", 2,
         f"clips of a response's ratio 0.0003 below and 0.0004 above; "
         f"{USUAL}"),
        ("--advantage_estimator reinforce --is_correction off --entropy_coef 0.01", 2,
         f"{ON_POLICY}; loss reduced by token-mean, advantages whitened, entropy bonus 0.01"),
        ("--advantage_estimator rloo --is_correction off --high_entropy_token_ratio 0.2", 2,
         f"{ON_POLICY}; loss reduced by token-mean, policy loss on the 0.2 of tokens with the highest entropy"),
        ("--loss_agg_mode token-mean --is_correction sequence_mask --is_cap 3", 2,
         f"{ON_POLICY}; loss reduced by token-mean, sequence_mask weights up to 3"),
    ],
)  # fmt: skip
def test_what_is_named(text: str, number: int, line: str):
    assert lines(text)[number] == line


def test_rewards_show_their_weights_where_they_differ():
    assert weighted_rewards({"exact": 1.0, "format": 1.0}) == "exact + format"
    assert weighted_rewards({"exact": 1.0, "format": 0.25}) == "1 x exact + 0.25 x format"


def test_what_an_estimator_of_ones_own_ignores_is_left_out(monkeypatch: pytest.MonkeyPatch):
    text = "--max_epochs 2 --dual_clip 3 --loss_agg_mode token-mean"
    for ignored, start in (
        ({"clip_range_higher", "loss_agg_mode"},
         "clips of a token's ratio 0.2 below and 3 where the advantage is negative; "),
        ({"clip_range", "clip_range_higher", "dual_clip", "loss_agg_mode"},
         "no clip: --advantage_estimator group_norm heeds none; "),
    ):  # fmt: skip
        own = replace(load_estimator("group_norm"), ignores=ignored)
        monkeypatch.setattr("lightrft.method.load_estimator", lambda name, own=own: own)
        assert lines(text)[2] == start + USUAL
