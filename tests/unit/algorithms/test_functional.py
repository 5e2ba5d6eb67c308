from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch

from lightrft.algorithms.functional import (
    Counts,
    aggregate,
    bounded,
    kl_penalty,
    log_ratio,
    masked,
    ppo_clip,
    token_weights,
)

NAN = float("nan")
MODES = (
    "token-mean",
    "seq-mean-token-sum",
    "seq-mean-token-mean",
    "seq-mean-token-sum-norm",
    "prompt-mean-token-mean",
)
# Rows of prompts 0, 1, 1 and an empty row of prompt 2; 6 tokens whose losses sum to 3, 4, 15; NaN is padding.
LOSS = torch.tensor([[1.0, 2.0, NAN], [4.0, NAN, NAN], [3.0, 5.0, 7.0], [NAN, NAN, NAN]], dtype=torch.float64)
MASK = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 0, 0]])
GROUP_TOKENS = torch.tensor([2.0, 4.0, 4.0, 0.0])
COUNTS = Counts(tokens=6, sequences=3, rows=4, groups=2, max_new_tokens=8)
BY_HAND = {
    "token-mean": 22 / 6,
    "seq-mean-token-sum": 22 / 3,
    "seq-mean-token-mean": (1.5 + 4 + 5) / 3,
    "seq-mean-token-sum-norm": 22 / (4 * 8),
    "prompt-mean-token-mean": (3 / 2 + 19 / 4) / 2,
}


@pytest.mark.parametrize("mode", MODES)
def test_aggregation_by_hand(mode):
    # float64 sums of six numbers: exact to 1e-15
    assert aggregate(LOSS, MASK, mode, COUNTS, GROUP_TOKENS).item() == pytest.approx(BY_HAND[mode], rel=1e-14)


@pytest.mark.parametrize("mode", MODES)
def test_the_gradient_of_an_aggregation_is_its_weights_and_padding_gets_none(mode):
    loss = LOSS.clone().requires_grad_()
    aggregate(loss, MASK, mode, COUNTS, GROUP_TOKENS).backward()
    weights = token_weights(MASK.double(), mode, COUNTS, GROUP_TOKENS)
    assert torch.equal(loss.grad, weights) and bool(weights[MASK == 0].eq(0).all())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pieces", [[[0], [1], [2], [3]], [[3, 0], [2, 1]]])
def test_pieces_of_a_step_sum_to_it(mode, pieces):
    parts = [aggregate(LOSS[p], MASK[p], mode, COUNTS, GROUP_TOKENS[p]).item() for p in pieces]
    assert sum(parts) == pytest.approx(BY_HAND[mode], rel=1e-14)


@pytest.mark.parametrize("mode", MODES)
def test_a_step_without_tokens_is_zero(mode):
    nothing = Counts(tokens=0, sequences=0, rows=0, groups=0, max_new_tokens=8)
    found = aggregate(LOSS, torch.zeros_like(MASK), mode, nothing, torch.zeros(4))
    assert found.item() == 0.0


def test_unknown_modes_and_estimators_are_named():
    with pytest.raises(ValueError, match="'mean'"):
        token_weights(MASK.double(), "mean", COUNTS)
    with pytest.raises(ValueError, match="'k4'"):
        kl_penalty(LOSS, LOSS, MASK, "k4")


def test_masked_replaces_before_anything_can_spread():
    values = torch.tensor([[1.0, NAN], [float("inf"), 2.0]], requires_grad=True)
    found = masked(values, torch.tensor([[1, 0], [0, 1]]))
    found.exp().sum().backward()
    assert found.tolist() == [[1.0, 0.0], [0.0, 2.0]]
    assert values.grad.tolist() == [[pytest.approx(math.e), 0.0], [0.0, pytest.approx(math.exp(2))]]


def test_clip_by_hand():
    ratio = torch.tensor([0.5, 1.0, 1.5, 0.5, 1.0, 1.5], requires_grad=True)
    advantages = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0, -1.0])
    loss = ppo_clip(ratio, advantages, 0.2, 0.3)
    loss.sum().backward()
    # A > 0: at most 1.3 counts; A < 0: at least 0.8. float32 rounding of 1.3 and 0.8.
    assert loss.tolist() == pytest.approx([-0.5, -1.0, -1.3, 0.8, 1.0, 1.5], rel=1e-6)
    assert ratio.grad.tolist() == [-1.0, -1.0, 0.0, 0.0, 1.0, 1.0]  # at a tie the full gradient, not half of it


def test_on_policy_gradient_is_minus_the_advantage():
    old = torch.tensor([[-1.0, -2.0, -0.1]], dtype=torch.float64)
    logprobs, advantages = old.clone().requires_grad_(), torch.tensor([[0.5, -2.0, 0.0]], dtype=torch.float64)
    ratio = log_ratio(logprobs, old, torch.ones(1, 3)).exp()
    ppo_clip(ratio, advantages, 0.2, 0.3).sum().backward()
    assert logprobs.grad.tolist() == [[-0.5, 2.0, 0.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("d", [50.0, -50.0, 300.0])
def test_extreme_log_ratios_stay_finite_in_value_and_gradient(d, dtype):
    logprobs, old = torch.full((1, 2), d, dtype=dtype).requires_grad_(), torch.zeros(1, 2, dtype=dtype)
    mask, advantages = torch.ones(1, 2), torch.tensor([[1.0, -1.0]], dtype=dtype)
    kept = bounded(log_ratio(logprobs, old, mask))
    assert kept.tolist() == [[math.copysign(20.0, d)] * 2]
    loss = ppo_clip(kept.exp(), advantages, 0.2, 0.3)
    kl = [kl_penalty(logprobs, old, mask, kind) for kind in ("k1", "k2", "k3")]
    (loss.sum() + sum(value.sum() for value in kl)).backward()
    assert all(bool(value.isfinite().all()) for value in (loss, *kl, logprobs.grad))
    assert kl[1].tolist() == [[d * d / 2] * 2]


def test_k3_is_never_negative_and_keeps_its_digits_near_zero():
    d = torch.tensor([[1e-4, -1e-4, 1e-3, 0.5, -3.0, 0.0]])
    found = kl_penalty(d, torch.zeros_like(d), torch.ones_like(d), "k3")
    wanted = [math.expm1(-x) + x for x in d[0].double().tolist()]
    assert bool((found >= 0).all())
    # float32: the sum of two numbers of size d cancels to d^2 / 2, which leaves about 1e-7 * d of error
    assert found[0].tolist() == pytest.approx(wanted, rel=1e-5, abs=1e-10)


def test_estimators_import_without_torch():
    code = (
        "import sys, lightrft.algorithms.functional, lightrft.algorithms.estimator as e;"
        "e.load_estimator('group_norm'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
