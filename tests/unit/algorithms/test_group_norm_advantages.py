from __future__ import annotations

import math

import pytest
import torch

from lightrft.algorithms.estimator import AdvantageSettings, load_estimator
from lightrft.algorithms.functional import group_statistics
from lightrft.ranks.base import ONE_RANK

NAN, INF = float("nan"), float("inf")
SETTINGS = AdvantageSettings()


@pytest.fixture
def advantages_of(batch_of):
    """One advantage per sample, read off a batch of one prompt token and one response token."""

    def compute(rewards, groups, dtype=torch.float64):
        rows = [((1, 5), (0, 1))] * len(rewards)
        batch = batch_of(rows, rewards=torch.tensor(rewards, dtype=dtype), group=torch.tensor(groups))
        return load_estimator("group_norm").advantage(batch, SETTINGS, ONE_RANK).advantages[:, 1]

    return compute


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", range(3, 17))
def test_a_constant_group_is_exactly_zero(advantages_of, n, dtype):
    # In float32 the mean of n times 0.7 is not always 0.7, and neither is the std 0.
    assert advantages_of([0.7] * n, [3] * n, dtype).tolist() == [0.0] * n


def test_a_constant_group_is_zero_beside_a_group_that_is_not(advantages_of):
    found = advantages_of([0.7] * 7 + [0.0, 1.0], [0] * 7 + [1] * 2)
    root = math.sqrt(0.5)  # the std of (0, 1) with ddof 1
    assert found[:7].tolist() == [0.0] * 7
    # float32 result: one rounding
    assert found[7:].tolist() == pytest.approx([-0.5 / (root + 1e-6), 0.5 / (root + 1e-6)], rel=1e-7)


@pytest.mark.parametrize("rewards, groups", [([5.0], [0]), ([5.0, 1.0, 2.0], [4, 9, 1]), ([5.0, NAN, INF], [0] * 3)])
def test_fewer_than_two_finite_rewards_give_zero(advantages_of, rewards, groups):
    assert advantages_of(rewards, groups).tolist() == [0.0] * len(rewards)


def test_advantages_follow_their_samples_when_groups_are_shuffled(advantages_of):
    generator = torch.Generator().manual_seed(1)
    rewards = torch.rand(24, generator=generator, dtype=torch.float64)
    groups = torch.tensor([7, 1003, 5]).repeat_interleave(8)
    order = torch.randperm(24, generator=generator)
    plain = advantages_of(rewards.tolist(), groups.tolist())
    shuffled = advantages_of(rewards[order].tolist(), groups[order].tolist())
    # float64 sums in another order (1e-15), then one rounding to float32 (6e-8)
    torch.testing.assert_close(shuffled, plain[order], rtol=1.3e-7, atol=0)


def test_each_group_equals_the_formula_on_its_own(advantages_of):
    rewards, groups = [1.0, 4.0, 2.0, 8.0, 7.0], [0, 1, 0, 1, 1]
    # group 0: mean 1.5, std sqrt(0.5); group 1: mean 19/3, std sqrt(13/3) = sqrt(((7/3)^2 + (5/3)^2 + (2/3)^2) / 2)
    first, second = math.sqrt(0.5) + 1e-6, math.sqrt(13 / 3) + 1e-6
    wanted = [-0.5 / first, -7 / 3 / second, 0.5 / first, 5 / 3 / second, 2 / 3 / second]
    assert advantages_of(rewards, groups).tolist() == pytest.approx(wanted, rel=1e-7)  # one rounding to float32


def test_advantages_do_not_change_under_a_scale_and_a_shift_of_the_rewards(advantages_of):
    rewards, groups = [0.0, 1.0, 0.25, -0.5, 2.0, 0.0], [0, 0, 0, 1, 1, 1]
    plain = advantages_of(rewards, groups)
    moved = advantages_of([100 + 3 * r for r in rewards], groups)
    torch.testing.assert_close(moved, plain, rtol=2e-6, atol=0)  # epsilon 1e-6 against a std of at least 0.5


def test_statistics_keep_the_digits_of_float64(advantages_of):
    # 2^24 and its successor are one number in float32.
    one = math.sqrt(0.5) / (1 + 1e-6 / math.sqrt(0.5))
    found = advantages_of([2.0**24, 2.0**24 + 1], [0, 0])
    assert found.tolist() == pytest.approx([-one, one], rel=1e-7)  # one rounding to float32


def test_group_statistics_by_hand():
    found = group_statistics(torch.tensor([1.0, NAN, 3.0, 2.0, INF]), torch.tensor([9, 9, 9, 4, 4]))
    assert found.rows.tolist() == [0, 0, 0, 1, 1]
    assert found.mean.tolist() == [2.0, 2.0] and found.mean.dtype == torch.float64
    assert found.count.tolist() == [2.0, 1.0]
    assert found.std[0].item() == pytest.approx(math.sqrt(2), rel=1e-15)
    assert found.constant.tolist() == [False, True]


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_an_invalid_sample_leaves_statistics_and_every_denominator(batch_of, bad):
    rows = [((1, 5, 6), (0, 1, 1)), ((1, 5), (0, 1)), ((1, 5, 6), (0, 1, 1)), ((1, 5), (0, 1))]
    rewards = torch.tensor([1.0, bad, 0.0, 2.0], dtype=torch.float64)
    batch = batch_of(rows, rewards=rewards, group=torch.tensor([7, 7, 7, 7]))
    filled, metrics = load_estimator("group_norm").fill_advantages(batch, SETTINGS, ONE_RANK)
    one = 1 / (1 + 1e-6)  # mean 1, std 1 of (1, 0, 2)
    wanted = torch.tensor([[0, 0, 0], [0, 0, 0], [0, -one, -one], [0, one, 0]])
    torch.testing.assert_close(filled.advantages, wanted, rtol=1e-7, atol=0)  # one rounding to float32
    assert filled.response_mask.tolist() == [[0, 1, 1], [0, 0, 0], [0, 1, 1], [0, 1, 0]]
    assert batch.response_mask[1].tolist() == [0, 1, 0]  # the batch that was given is not edited
    assert metrics == {"reward/constant_groups_frac": 0.0, "policy/nonfinite_frac": 0.0}


def test_the_share_of_constant_groups_is_reported(batch_of):
    rewards = torch.tensor([1.0, 1.0, 0.0, 1.0, NAN, 1.0, 0.0, 0.0])
    batch = batch_of([((1, 5), (0, 1))] * 8, rewards=rewards, group=torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]))
    _, metrics = load_estimator("group_norm").fill_advantages(batch, SETTINGS, ONE_RANK)
    assert metrics["reward/constant_groups_frac"] == 0.75


def test_what_group_norm_declares():
    estimator = load_estimator("group_norm")
    assert estimator.aggregation == "seq-mean-token-mean" and estimator.kl == "loss"
    assert estimator.needs == {"group"} and not estimator.defaults
