"""The advantages of gae on a batch, by hand; the recursion itself is held by the golden cases."""

from __future__ import annotations

import math

import pytest
import torch

from lightrft.algorithms.advantages import explained_variance
from lightrft.algorithms.estimator import AdvantageSettings, load_estimator
from lightrft.ranks.base import ONE_RANK

# Rows of prompt, response, padding. R = 1 and 0, gamma 0.5, lambda 0.5; the third sample is invalid.
VALUES = [[0.0, 0.5, 0.25, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 7.0, 7.0, 0.0]]
MASK = ((0, 1, 1, 0), (0, 1, 0, 0), (0, 1, 1, 0))
# Row 0: A_2 = 1 - 0.25 = 0.75; A_1 = 0 + 0.5 x 0.25 - 0.5 + 0.25 x 0.75 = -0.1875. Row 1: A_1 = 0 - 1 = -1.
RAW = [[0, -0.1875, 0.75, 0], [0, -1, 0, 0], [0, 0, 0, 0]]
RETURNS = [[0, 0.3125, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


@pytest.fixture
def batch(batch_of):
    made = batch_of([((1, 2, 3, 0), mask) for mask in MASK])
    return made.filled(rewards=torch.tensor([1.0, 0.0, math.nan], dtype=torch.float64), values=torch.tensor(VALUES))


def test_advantages_and_returns(batch):
    filled, metrics = load_estimator("gae").fill_advantages(batch, AdvantageSettings(gamma=0.5, lambd=0.5), ONE_RANK)
    assert filled.advantages.tolist() == RAW and filled.returns.tolist() == RETURNS
    assert filled.advantages.dtype == filled.returns.dtype == torch.float32
    assert filled.response_mask[2].sum() == 0
    # Errors -0.1875, 0.75, -1; returns 0.3125, 1, 0: sums of squares about the mean 1.5783 and 0.5234 (both x 3).
    errors, returns = (-0.1875, 0.75, -1.0), (0.3125, 1.0, 0.0)
    spread = [sum((x - sum(xs) / 3) ** 2 for x in xs) for xs in (errors, returns)]
    assert metrics["critic/explained_variance"] == pytest.approx(1 - spread[0] / spread[1])


def test_advantages_are_whitened_and_returns_are_not(batch):
    settings = AdvantageSettings(gamma=0.5, lambd=0.5, whiten=True, clip=1.0)
    filled, _ = load_estimator("gae").fill_advantages(batch, settings, ONE_RANK)
    mean = (-0.1875 + 0.75 - 1) / 3
    std = math.sqrt(((-0.1875 - mean) ** 2 + (0.75 - mean) ** 2 + (-1 - mean) ** 2) / 3)
    assert filled.advantages[0, 1].item() == pytest.approx((-0.1875 - mean) / std)
    assert filled.advantages[0, 2] == 1 and filled.advantages[1, 1] == -1, "clipped after whitening"
    assert filled.returns.tolist() == RETURNS


def test_kl_is_paid_on_every_token(batch):
    """beta 0.5, k1 = 0.5 on each token: rewards are 0.25 less, so A_2 = 0.5 and A_1 = -0.1875 - 0.25 - 0.25 x 0.25."""
    mask = batch.response_mask
    batch = batch.filled(old_logprobs=-0.5 * mask, ref_logprobs=-1.0 * mask)
    settings = AdvantageSettings(kl_coef=0.5, kl_kind="k1", gamma=0.5, lambd=0.5)
    filled, _ = load_estimator("gae").fill_advantages(batch, settings, ONE_RANK)
    assert filled.advantages.tolist() == [[0, -0.5, 0.5, 0], [0, -1.25, 0, 0], [0, 0, 0, 0]]


def test_without_values_it_says_who_fills_them(batch):
    with pytest.raises(ValueError, match="Batch.values is empty: it is filled by update/score.py"):
        load_estimator("gae").fill_advantages(batch.filled(values=None), AdvantageSettings(), ONE_RANK)


def test_explained_variance():
    mask, returns = torch.ones(1, 4), torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    assert explained_variance(returns, returns, mask) == 1
    assert explained_variance(torch.full((1, 4), 9.0), returns, mask) == 0
    assert explained_variance(-returns, returns, mask) == -3  # errors are twice the returns: 1 - 4
    assert explained_variance(returns, torch.ones(1, 4), mask) == 0
    assert explained_variance(returns, returns, torch.tensor([[0, 1, 0, 0]])) == 0
