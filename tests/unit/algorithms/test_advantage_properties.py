"""What must hold for advantages, rewards, KL, weights and schedules, whatever the numbers (algorithms S17). float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ragged import EXACT, SEEDS, batch

from lightrft.algorithms.advantages import (
    discounted_returns,
    generalized_advantages,
    group_baseline,
    token_rewards,
)
from lightrft.algorithms.control import KLController, TemperatureSchedule
from lightrft.algorithms.entropy_mask import entropy_threshold, high_entropy_mask
from lightrft.algorithms.estimator import AdvantageSettings, load_estimator
from lightrft.algorithms.functional import kl_penalty
from lightrft.algorithms.importance import KINDS, importance_weights, row_weights
from lightrft.algorithms.shaping import RunningMoments, clipped_rewards
from lightrft.algorithms.whitening import clipped_advantages, whitened
from lightrft.groups import varied_groups
from lightrft.ranks.base import ONE_RANK


@settings(max_examples=50, deadline=None)
@given(seed=SEEDS, scale=st.floats(0.5, 20), shift=st.floats(-5, 5))
def test_group_baselines_move_as_their_formulas_say(seed, scale, shift):
    numbers = np.random.default_rng(seed)
    rewards = torch.tensor(numbers.normal(size=12))
    groups = torch.tensor(numbers.permutation(np.repeat([3, 7, 9], 4)))
    base = {kind: group_baseline(rewards, groups, kind)[0] for kind in ("scaled", "centred", "leave_one_out")}
    moved = {kind: group_baseline(scale * rewards + shift, groups, kind)[0] for kind in base}
    torch.testing.assert_close(moved["scaled"], base["scaled"], rtol=1e-4, atol=1e-5)  # up to epsilon / std
    torch.testing.assert_close(moved["centred"], scale * base["centred"], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(base["leave_one_out"], base["centred"] * 4 / 3, **EXACT)
    for kind in base:
        sums = torch.zeros(10, dtype=torch.float64).index_add(0, groups, base[kind])
        assert float(sums.abs().max()) < 1e-9


@pytest.mark.parametrize("kind", ["scaled", "centred", "leave_one_out", "clip_filter"])
def test_constant_groups_and_singles_have_no_advantage(kind):
    rewards = torch.tensor([0.7] * 9 + [1.0, math.nan, 5.0, math.inf], dtype=torch.float32)
    groups = torch.tensor([0] * 9 + [1, 1, 2, 3])
    found, _ = group_baseline(rewards, groups, kind)
    assert found.tolist() == [0.0] * 13


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS)
def test_whitening(seed):
    advantages, _, _, mask = batch(seed)
    found = whitened(advantages, mask)
    kept = found[mask == 1]
    assert abs(float(kept.mean())) < 1e-12 and float(kept.var(correction=0)) == pytest.approx(1, rel=1e-9)
    assert float(found[mask == 0].abs().max()) == 0


def test_equal_returns_whiten_to_nothing():
    """The mean of twelve times 0.7 is not 0.7: over the floor of 1e-4 the rest would reach Adam, which scales it up."""
    mask = torch.ones(1, 13, dtype=torch.long).index_fill(1, torch.tensor([5]), 0)
    for value, dtype in ((0.7, torch.float32), (0.7, torch.float64), (0.1, torch.float64)):
        returns = torch.full((1, 13), value, dtype=dtype).index_fill(1, torch.tensor([5]), 99.0)
        assert whitened(returns, mask).tolist() == [[0.0] * 13]
    assert whitened(returns, mask * 0).tolist() == [[0.0] * 13]


THOUSANDS = [1000.0, 1000.001, 1000.002, 1000.003]  # float32 knows 1000, 1000.00098, 1000.00201, 1000.00299


@pytest.mark.parametrize("name", ["reinforce", "reinforce_baseline", "gae", "rloo", "dr_grpo"])
def test_returns_are_rounded_after_the_whitening(name, batch_of):
    """Deviations of 3, 1, 1 and 3 halves of 0.001 over their root mean square, 0.001 sqrt(5) / 2."""
    batch = batch_of([((1, 5), (0, 1))] * 4, rewards=torch.tensor(THOUSANDS, dtype=torch.float64),
                     group=torch.zeros(4, dtype=torch.long), values=torch.zeros(4, 2))  # fmt: skip
    found, _ = load_estimator(name).fill_advantages(batch, AdvantageSettings(whiten=True), ONE_RANK)
    wanted = [step / 5**0.5 for step in (-3, -1, 1, 3)]
    assert found.advantages[:, 1].tolist() == pytest.approx(wanted, rel=1e-6)  # float32; rounded first: 2e-2 off
    assert found.advantages.dtype == torch.float32


@pytest.mark.parametrize("name, bad", [("dr_grpo", 3e38), ("reinforce", 3e39), ("gae", 3e39), ("gae", -3e39)])
@pytest.mark.parametrize("whiten", [False, True])
def test_a_number_beyond_float32_trains_nothing_and_spoils_no_other(name, bad, whiten, batch_of):
    """Two groups; in dr_grpo's first each of 3e38 and -3e38 is a float32 and their distance to the mean is, too, but
    not the third's: 1.2e39 / 3."""
    rewards = [bad, -1.0, 1.0, 3.0] if name != "dr_grpo" else [bad, -bad * 1.3, 2.0, 4.0]
    batch = batch_of([((1, 5), (0, 1))] * 4, rewards=torch.tensor(rewards, dtype=torch.float64),
                     group=torch.tensor([0, 0, 1, 1]), values=torch.zeros(4, 2))  # fmt: skip
    found, metrics = load_estimator(name).fill_advantages(batch, AdvantageSettings(whiten=whiten), ONE_RANK)
    assert bool(found.advantages.isfinite().all())
    lost = 2 if name == "dr_grpo" else 1
    assert found.response_mask[:, 1].tolist() == [0] * lost + [1] * (4 - lost)
    assert metrics["policy/nonfinite_frac"] == lost / 4 and float(found.advantages[:lost].abs().max()) == 0
    assert not found.has("returns") or bool(found.returns.isfinite().all())
    assert float(found.advantages[lost:, 1].sum()) == pytest.approx(0.0 if whiten or lost == 2 else 3.0, abs=1e-6)


def test_tools_are_transparent_to_returns_and_gae():
    """Columns 1 and 3 are a tool's output; without them the trained tokens get the same numbers."""
    mask = torch.tensor([[1, 0, 1, 0, 1]])
    rewards = token_rewards(torch.tensor([2.0]), mask, torch.zeros(1, 5), None, 0.0, "k1")
    assert rewards.tolist() == [[0, 0, 0, 0, 2.0]]
    assert discounted_returns(rewards, mask, 0.5).tolist() == [[0.5, 0, 1.0, 0, 2.0]]
    values = torch.tensor([[1.0, 99, 2.0, 99, 4.0]])
    close, returns = generalized_advantages(rewards, values, mask, 0.5, 0.5)
    # delta: 0.5*2-1 = 0, 0.5*4-2 = 0, 2-4 = -2;  A: -0.125, -0.5, -2
    assert close.tolist() == [[-0.125, 0, -0.5, 0, -2.0]] and returns.tolist() == [[0.875, 0, 1.5, 0, 2.0]]


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS)
def test_what_the_k_estimators_do_in_expectation(seed):
    """Over all outcomes of a policy of five: as a loss k1 has no gradient, k2 that of KL(policy, ref), k3 that of
    KL(ref, policy); as a cost of the score function k1 has that of KL(policy, ref) (S6.2)."""
    numbers = torch.Generator().manual_seed(seed)
    logits, reference = (2 * torch.randn(5, generator=numbers, dtype=torch.float64) for _ in range(2))
    logits.requires_grad_()
    ref, one = reference.log_softmax(-1), torch.ones(1, 5, dtype=torch.long)

    def slope(loss_of):
        logp = logits.log_softmax(-1)
        return torch.autograd.grad(loss_of(logp, logp.detach().exp()), logits)[0]

    def expected(kind):
        return slope(lambda logp, p: (p * kl_penalty(logp[None], ref[None], one, kind)[0]).sum())

    reverse = slope(lambda logp, p: (logp.exp() * (logp - ref)).sum())
    forward = slope(lambda logp, p: (ref.exp() * (ref - logp)).sum())
    score = slope(lambda logp, p: (p * kl_penalty(logp.detach()[None], ref[None], one, "k1")[0] * logp).sum())
    for found, wanted in ((expected("k1"), 0 * reverse), (expected("k2"), reverse), (expected("k3"), forward)):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(score, reverse, rtol=1e-9, atol=1e-12)


def test_the_k_estimators_have_their_gradients():
    d = torch.tensor([[-2.0, -0.1, 0.0, 0.3, 3.0]], dtype=torch.float64)
    for kind, wanted in (("k1", torch.ones_like(d)), ("k2", d), ("k3", 1 - (-d).exp())):
        logp = d.clone().requires_grad_()
        kl_penalty(logp, torch.zeros_like(d), torch.ones_like(d), kind).sum().backward()
        torch.testing.assert_close(logp.grad, wanted, **EXACT)


@settings(max_examples=30, deadline=None)
@given(values=st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=40), cuts=st.lists(st.integers(0, 40), max_size=5))
def test_running_moments_do_not_see_the_batches(values, cuts):
    whole, parts = RunningMoments(), RunningMoments()
    whole.update(values)
    edges = [0, *sorted(min(cut, len(values)) for cut in cuts), len(values)]
    for start, stop in zip(edges, edges[1:], strict=False):
        parts.update([*values[start:stop], math.nan])
    assert (parts.count, parts.mean) == (whole.count, pytest.approx(whole.mean, rel=1e-9, abs=1e-9))
    assert parts.std == pytest.approx(whole.std, rel=1e-6, abs=1e-6)
    spread = float(np.std(values, ddof=1))
    assert whole.std == pytest.approx(spread, rel=1e-6, abs=1e-6)


def test_moments_of_equal_rewards_divide_by_one():
    """0.1 is no sum of powers of two: the mean of several differs from it in the last bit."""
    for reward in (2.0, 0.1, 0.7):
        moments = RunningMoments()
        for size in (1, 12, 6, 24):
            moments.update([reward] * size)
            found = moments.normalised(torch.tensor([reward], dtype=torch.float64), minus_mean=True)
            assert (moments.std, moments.squares, found.tolist()) == (float(moments.count == 1), 0.0, [0.0])
            assert (
                moments.normalised(torch.tensor([reward]), minus_mean=False).tolist() == torch.tensor([reward]).tolist()
            )


@pytest.mark.parametrize("reward", (0.1, 0.7, 1 / 3, 0.9, 1.7))
def test_equal_rewards_never_seem_to_vary(reward):
    """Whatever their number: (0.1 * 48) / 48 is not 0.1, and the rest of 1e-17 would be divided by."""
    for count in range(1, 100):
        moments = RunningMoments()
        moments.update([reward] * count)
        moments.update([reward] * count)
        assert (moments.mean, moments.std) == (reward, 0.0), count


def test_clips_count_before_they_clip():
    rewards, share = clipped_rewards(torch.tensor([3.0, -4.0, 1.0, math.inf, -math.inf, math.nan]), 2.0)
    assert rewards[:5].tolist() == [2.0, -2.0, 1.0, math.inf, -math.inf] and bool(rewards[5].isnan())
    assert share == pytest.approx(2 / 3), "of the finite ones; the others stay invalid"
    mask = torch.tensor([[1, 1, 0]])
    found, share = clipped_advantages(torch.tensor([[3.0, 1.0, 9.0]]), mask, 2.0)
    assert found.tolist() == [[2.0, 1.0, 2.0]] and share == 0.5


@pytest.mark.parametrize("place", range(3))
def test_an_invalid_sample_neither_keeps_its_group_nor_drops_it(place):
    """Dynamic sampling looks at the valid ones (S7.6): 1, 0 vary and 1, 1 do not."""
    groups = {7: [1.0, 0.0], 8: [1.0, 1.0], 9: []}
    for rewards in groups.values():
        rewards.insert(place, math.nan)
    group = [name for name, rewards in groups.items() for _ in rewards]
    assert varied_groups(group, [reward for rewards in groups.values() for reward in rewards]) == {7}


@pytest.mark.parametrize("kind", KINDS)
def test_importance_weights_are_one_where_engine_and_trainer_agree(kind):
    logp, _, _, mask = batch(9)
    for weights_of in (importance_weights, row_weights):
        found = weights_of(logp, logp.masked_fill(mask == 0, math.nan), mask, kind, 0.5, 2.0)
        assert torch.equal(found, mask.double())


def test_row_weights_are_one_number_a_row():
    """Row 0: log w 0.3 and 0.5, mean 0.4, sum 0.8; exp(0.8) = 2.2 is over the cap."""
    mask = torch.tensor([[1, 1]])
    old, rollout = torch.tensor([[0.3, 0.5]], dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64)
    row = lambda kind: row_weights(old, rollout, mask, kind, 0.5, 2.0)[0].tolist()  # noqa: E731
    assert row("token_truncate") == row("token_mask") == row("geometric") == pytest.approx([math.exp(0.4)] * 2)
    assert row("sequence_truncate") == [2.0, 2.0] and row("sequence_mask") == [0.0, 0.0]


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, ratio=st.floats(0.01, 0.99))
def test_the_entropy_threshold_is_the_quantile(seed, ratio):
    entropy, _, _, mask = batch(seed)
    entropy = -entropy
    kept = entropy[mask == 1]
    threshold = entropy_threshold(kept, ratio)
    assert threshold == pytest.approx(float(np.quantile(kept.numpy(), 1 - ratio)), rel=1e-12)
    chosen = high_entropy_mask(entropy, mask, threshold)
    assert ((mask * (entropy >= threshold)) <= chosen).all() and (chosen <= mask * (entropy >= threshold - 2e-5)).all()


def test_tokens_of_one_entropy_are_chosen_alike_whatever_rounding_made_of_it():
    entropy = torch.tensor([[1.0, 1.0 + 2e-7, 1.0 - 2e-7, 0.99]])
    for threshold in (1.0, 1.0 + 2e-7):
        assert high_entropy_mask(entropy, torch.ones(1, 4, dtype=torch.long), threshold).tolist() == [[1, 1, 1, 0]]


def test_the_controller_has_a_floor_a_limit_and_no_fear_of_nan():
    controller = KLController(0.001, 0.01, horizon=10, floor=0.0009)
    controller.update(math.nan, 10)
    assert controller.coefficient == 0.001
    controller.update(1.0, 1000)
    assert controller.coefficient == pytest.approx(0.0012)
    for _ in range(9):
        controller.update(0.0, 1000)
    assert controller.coefficient == 0.0009
    fixed = KLController(0.5)
    fixed.update(9.0, 100)
    assert fixed.coefficient == 0.5


def test_schedules_meet_their_ends_and_hold():
    for kind in ("linear", "cosine", "exponential"):
        schedule = TemperatureSchedule(kind, 1.2, 0.3, 10)
        assert schedule.at(0) == pytest.approx(1.2) and schedule.at(10) == schedule.at(99) == pytest.approx(0.3)
        assert TemperatureSchedule(kind, 1.2, 0.3, 0).at(0) == pytest.approx(0.3)
    assert TemperatureSchedule("linear", 1.2, 0.3, 10).at(5) == pytest.approx(0.75)
    assert TemperatureSchedule("cosine", 1.2, 0.3, 10).at(5) == pytest.approx(0.75)
    assert TemperatureSchedule("exponential", 1.2, 0.3, 10).at(5) == pytest.approx(0.6)
    assert TemperatureSchedule("constant", 1.2, 0.3, 10).at(5) == 1.2
