"""What must hold for every loss and advantage, whatever the numbers (algorithms S17). float64 throughout."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightrft.algorithms.advantages import (
    discounted_returns,
    generalized_advantages,
    group_baseline,
    token_rewards,
)
from lightrft.algorithms.control import KLController, TemperatureSchedule
from lightrft.algorithms.entropy_mask import entropy_threshold, high_entropy_mask
from lightrft.algorithms.functional import Counts, aggregate, kl_penalty
from lightrft.algorithms.importance import KINDS, importance_weights, row_weights
from lightrft.algorithms.losses import (
    clipped_log_ratio_loss,
    clipped_ratio_loss,
    drift_loss,
    geometric_mean_loss,
    sequence_ratio_loss,
    token_sequence_ratio_loss,
)
from lightrft.algorithms.shaping import RunningMoments, clipped_rewards, varied_groups
from lightrft.algorithms.whitening import clipped_advantages, whitened

EXACT = {"rtol": 1e-12, "atol": 1e-14}  # float64, sums of a few dozen terms in another order
SEQUENCE = "seq-mean-token-mean"
LOSSES = {
    "ppo": lambda *given: clipped_ratio_loss(*given, 0.2, 0.3, None),
    "dual": lambda *given: clipped_ratio_loss(*given, 0.2, 0.3, 3.0),
    "gspo": lambda *given: sequence_ratio_loss(*given, 0.2, 0.3),
    "gspo_token": lambda *given: token_sequence_ratio_loss(*given, 0.2, 0.3),
    "gmpo": lambda *given: geometric_mean_loss(*given, 0.4, 0.4),
    "cpgd": lambda *given: clipped_log_ratio_loss(*given, 0.2, 0.3),
    "drift": lambda logp, old, _, mask: drift_loss(logp, old, mask, 2.0),
}
EACH = pytest.mark.parametrize("loss_of", LOSSES.values(), ids=LOSSES)
SEEDS = st.integers(0, 2**32 - 1)


def batch(seed: int, rows: int = 5, width: int = 7):
    """Ragged rows with holes; the last row is empty. One advantage a row."""
    numbers = torch.Generator().manual_seed(seed)
    mask = (torch.rand(rows, width, generator=numbers) < 0.8).long()
    mask[:, 0], mask[-1] = 1, 0
    logp = -torch.rand(rows, width, generator=numbers, dtype=torch.float64) * 3
    old = logp + 0.5 * torch.randn(rows, width, generator=numbers, dtype=torch.float64)
    advantages = torch.randn(rows, 1, generator=numbers, dtype=torch.float64).expand(rows, width)
    return logp, old, advantages, mask


def counts_of(mask: torch.Tensor, rows: int | None = None) -> Counts:
    lengths = mask.sum(-1)
    return Counts(float(lengths.sum()), float((lengths > 0).sum()), rows or len(mask), 1, max_new_tokens=8)


def gradient(loss_of, given, mode=SEQUENCE, counts=None, rows=None):
    """Scalar and d loss / d logprobs of some rows, under the denominators of `counts`."""
    logp, old, advantages, mask = given
    logp = logp.clone().requires_grad_()
    chosen = slice(None) if rows is None else rows
    found = loss_of(logp[chosen], old[chosen], advantages[chosen], mask[chosen])
    loss = aggregate(found.loss, mask[chosen], mode, counts or counts_of(mask))
    loss.backward()
    return loss.detach(), logp.grad


@EACH
@settings(max_examples=25, deadline=None)
@given(seed=SEEDS)
def test_order_padding_and_empty_rows_change_nothing(loss_of, seed):
    given_ = batch(seed)
    loss, grad = gradient(loss_of, given_)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    permuted, permuted_grad = gradient(loss_of, [x[order] for x in given_])
    torch.testing.assert_close(permuted, loss, **EXACT)
    torch.testing.assert_close(permuted_grad, grad[order], **EXACT)
    padded = [torch.nn.functional.pad(x, (0, 3)) for x in given_]
    wider, wider_grad = gradient(loss_of, padded)
    torch.testing.assert_close(wider, loss, **EXACT)
    torch.testing.assert_close(wider_grad[:, :7], grad, **EXACT)
    more = [torch.cat([x, torch.zeros_like(x[:2])]) for x in given_]
    taller, taller_grad = gradient(loss_of, more)
    torch.testing.assert_close(taller, loss, **EXACT)
    torch.testing.assert_close(taller_grad[:5], grad, **EXACT)


@EACH
@pytest.mark.parametrize("mode", ["token-mean", "seq-mean-token-sum", SEQUENCE, "seq-mean-token-sum-norm"])
@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_any_split_has_the_whole_gradient(loss_of, mode, seed):
    given_ = batch(seed)
    loss, grad = gradient(loss_of, given_, mode)
    parts = [gradient(loss_of, given_, mode, counts_of(given_[3]), rows) for rows in ([0, 4], [1], [2, 3])]
    torch.testing.assert_close(sum(part[0] for part in parts), loss, **EXACT)
    torch.testing.assert_close(sum(part[1] for part in parts), grad, **EXACT)


@EACH
@pytest.mark.parametrize("junk", [math.nan, math.inf, -1e30])
def test_junk_in_the_padding_reaches_nothing(loss_of, junk):
    logp, old, advantages, mask = batch(3)
    loss, grad = gradient(loss_of, (logp, old, advantages, mask))
    dirty = [x.masked_fill(mask == 0, junk) for x in (logp, old, advantages)]
    dirty_loss, dirty_grad = gradient(loss_of, (*dirty, mask))
    torch.testing.assert_close(dirty_loss, loss, **EXACT)
    torch.testing.assert_close(dirty_grad, grad, **EXACT)


@EACH
@pytest.mark.parametrize("distance", [50.0, -50.0, 300.0])
def test_far_apart_policies_stay_finite(loss_of, distance):
    logp, _, advantages, mask = batch(4)
    loss, grad = gradient(loss_of, (logp, logp - distance, advantages, mask))
    assert bool(loss.isfinite()) and bool(grad.isfinite().all())


@pytest.mark.parametrize("d", [25.0, -25.0])
def test_what_is_linear_in_d_keeps_its_gradient_however_far(d):
    """Only what goes through an exp is held at 20 (S6.1): k2 has gradient d, k3 1 - exp(-d), CPGD -A, its drift c."""
    held = math.copysign(20, d)
    wanted = {
        "k1": 1.0, "k2": d, "k3": 1 - math.exp(-held), "drift": min(math.expm1(held), 2.0),
        "cpgd": 1.0 if d > 0 else -1.0,  # an advantage that pulls back: the side that is not clipped
    }  # fmt: skip
    one, zero = torch.ones(1, 1, dtype=torch.long), torch.zeros(1, 1, dtype=torch.float64)
    for name, gradient_wanted in wanted.items():
        logp = (zero + d).requires_grad_()
        if name.startswith("k"):
            loss = kl_penalty(logp, zero, one, name)
        elif name == "drift":
            loss = drift_loss(logp, zero, one, 2.0).loss
        else:
            loss = clipped_log_ratio_loss(logp, zero, zero - math.copysign(1, d), one, 0.2, 0.3).loss
        loss.sum().backward()
        assert logp.grad.item() == pytest.approx(gradient_wanted, rel=1e-12), name


@EACH
@pytest.mark.parametrize("size", [1e-3, 1e-5, 0.0])
def test_the_distance_that_is_watched_is_never_negative(loss_of, size):
    """In float32 exp(d) - 1 loses the digits of d; r - 1 - d is d^2 / 2 here."""
    _, _, advantages, mask = batch(6)
    d = size * torch.linspace(-1, 1, mask.numel()).reshape(mask.shape)
    found = loss_of(d, torch.zeros_like(d), advantages.float(), mask).metrics.get("policy/approx_kl")
    if found is not None:  # the drift is measured by its policy term
        assert float(found.min()) >= 0
        torch.testing.assert_close(found, d.square() / 2 * (mask == 1), rtol=1e-2, atol=1e-7 * size)


@pytest.mark.parametrize("lengths", [(257, 272), (11, 13)])
def test_any_size_of_advantage_is_constant_in_its_row(lengths):
    """One success among 64: the mean over a row of so large a number is another float32."""
    mask = torch.zeros(2, max(lengths), dtype=torch.long)
    for row, length in enumerate(lengths):
        mask[row, :length] = 1
    advantages = torch.tensor([[63 / 8], [-127 / 128**0.5]]).expand(mask.shape)
    zeros = torch.zeros(mask.shape)
    found = sequence_ratio_loss(zeros, zeros, advantages, mask, 0.2, 0.3)
    torch.testing.assert_close(found.loss, -advantages * mask, rtol=1e-6, atol=0)


@EACH
def test_all_rows_empty(loss_of):
    logp, old, advantages, mask = batch(5)
    loss, grad = gradient(loss_of, (logp, old, advantages, mask * 0))
    assert float(loss) == 0 and float(grad.abs().max()) == 0


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS)
def test_on_policy_all_losses_are_the_plain_policy_gradient(seed):
    """-A / (n_i N_seq) on every trained token; the drift has no gradient there."""
    logp, _, advantages, mask = batch(seed)
    lengths = mask.sum(-1, keepdim=True).clamp(min=1)
    wanted = -advantages * mask / (lengths * (mask.sum(-1) > 0).sum())
    for name, loss_of in LOSSES.items():
        _, grad = gradient(loss_of, (logp, logp, advantages, mask))
        torch.testing.assert_close(grad, wanted * (name != "drift"), **EXACT)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS)
def test_gspo_is_gspo_token_and_unclipped_gmpo(seed):
    given_ = batch(seed)
    loss, grad = gradient(lambda *x: sequence_ratio_loss(*x, 1 - 1e-9, 1e9), given_)
    for other in (
        lambda *x: token_sequence_ratio_loss(*x, 1 - 1e-9, 1e9),
        lambda *x: geometric_mean_loss(*x, 1e9, 1e9),
    ):
        other_loss, other_grad = gradient(other, given_)
        torch.testing.assert_close(other_loss, loss, **EXACT)
        torch.testing.assert_close(other_grad, grad, **EXACT)
    clipped, clipped_grad = gradient(LOSSES["gspo"], given_)
    token, token_grad = gradient(LOSSES["gspo_token"], given_)
    torch.testing.assert_close(token, clipped, **EXACT)
    torch.testing.assert_close(token_grad, clipped_grad, **EXACT)


def test_no_two_losses_have_the_same_gradient_off_policy():
    given_ = batch(6)
    found = {
        name: gradient(loss_of, given_)[1] for name, loss_of in LOSSES.items() if name not in ("dual", "gspo_token")
    }
    names = list(found)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            assert float((found[one] - found[other]).abs().max()) > 1e-3, (one, other)


def test_a_clipped_token_still_drifts_back():
    """d = +-0.5 is outside ln 0.8 .. ln 1.3: the policy term is flat, and the drift pulls the ratio towards 1."""
    for d, advantage in ((0.5, 1.0), (-0.5, -1.0)):
        mask = torch.ones(1, 1, dtype=torch.long)
        given_ = (torch.tensor([[d]], dtype=torch.float64), torch.zeros(1, 1), torch.full((1, 1), advantage), mask)
        assert float(gradient(LOSSES["cpgd"], given_)[1]) == 0
        pull = float(gradient(LOSSES["drift"], given_)[1])
        assert pull == pytest.approx(math.expm1(d)) and pull * d > 0


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
    mask = torch.ones(3, 4, dtype=torch.long)
    assert float(whitened(torch.full((3, 4), 0.7), mask).abs().max()) < 1e-3  # float32's rest over the floor of 1e-4
    assert float(whitened(torch.full((3, 4), 0.5), mask).abs().max()) == 0


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
    assert whole.std == pytest.approx(spread, rel=1e-6, abs=1e-6) or (whole.std == 1 and spread < 1e-9)


def test_moments_of_equal_rewards_divide_by_one():
    """0.1 is no sum of powers of two: the mean of several differs from it in the last bit."""
    for reward in (2.0, 0.1, 0.7):
        moments = RunningMoments()
        for size in (1, 12, 6, 24):
            moments.update([reward] * size)
            found = moments.normalised(torch.tensor([reward], dtype=torch.float64), minus_mean=True)
            assert (moments.std, moments.squares, found.tolist()) == (1.0, 0.0, [0.0])


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
    assert varied_groups((group, reward) for group, rewards in groups.items() for reward in rewards) == {7}


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
    assert torch.equal(high_entropy_mask(entropy, mask, threshold), mask * (entropy >= threshold))


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
