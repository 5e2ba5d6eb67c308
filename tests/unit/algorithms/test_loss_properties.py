"""What must hold for every loss, whatever the numbers (algorithms S17). float64 throughout."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from ragged import EXACT, SEEDS, batch

from lightrft.algorithms.functional import Counts, aggregate, kl_penalty
from lightrft.algorithms.losses import (
    clipped_log_ratio_loss,
    clipped_ratio_loss,
    drift_loss,
    geometric_mean_loss,
    sequence_ratio_loss,
    token_sequence_ratio_loss,
    value_loss,
)

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
EACH_MODE = pytest.mark.parametrize("mode", ["token-mean", "seq-mean-token-sum", SEQUENCE, "seq-mean-token-sum-norm"])


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
@EACH_MODE
@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_order_padding_and_empty_rows_change_nothing(loss_of, mode, seed):
    """An empty row is a real one for the mode that counts rows; those that only fill a rank up are not counted."""
    given_ = batch(seed)
    loss, grad = gradient(loss_of, given_, mode)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    permuted, permuted_grad = gradient(loss_of, [x[order] for x in given_], mode)
    torch.testing.assert_close(permuted, loss, **EXACT)
    torch.testing.assert_close(permuted_grad, grad[order], **EXACT)
    padded = [torch.nn.functional.pad(x, (0, 3)) for x in given_]
    wider, wider_grad = gradient(loss_of, padded, mode)
    torch.testing.assert_close(wider, loss, **EXACT)
    torch.testing.assert_close(wider_grad[:, :7], grad, **EXACT)
    more = [torch.cat([x, torch.zeros_like(x[:2])]) for x in given_]
    taller, taller_grad = gradient(loss_of, more, mode, counts_of(more[3], rows=5))
    torch.testing.assert_close(taller, loss, **EXACT)
    torch.testing.assert_close(taller_grad[:5], grad, **EXACT)


@EACH
@EACH_MODE
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
@pytest.mark.parametrize("distance", [50.0, -50.0, 300.0, math.inf, -math.inf])
def test_far_apart_policies_stay_finite(loss_of, distance):
    logp, _, advantages, mask = batch(4)
    loss, grad = gradient(loss_of, (logp, logp - distance, advantages, mask))
    assert bool(loss.isfinite()) and bool(grad.isfinite().all())


@pytest.mark.parametrize("d", [25.0, -25.0])
def test_what_is_linear_in_d_keeps_its_gradient_however_far(d):
    """Only what goes through an exp is held at 20 (S6.1): k2 has gradient d, k3 1 - exp(-d), CPGD -A, its drift c. And
    the k1 distance is the same for every loss."""
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
    for name in LOSSES.keys() - {"drift"}:
        assert LOSSES[name](zero + d, zero, zero, one).metrics["policy/approx_kl_k1"].item() == -d


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


@pytest.mark.parametrize("name", ["gspo", "gspo_token"])
def test_the_ratio_of_a_response_is_held_and_not_its_tokens(name):
    """One token at d = -60 among ten at 0: s = exp(-6), and each token has the gradient -A s / 10 (S3.1, S3.2). At
    d = 300 the mean of 30 is held at 20, where there is no gradient any more."""
    one, zeros = torch.ones(1, 10, dtype=torch.long), torch.zeros(1, 10, dtype=torch.float64)
    for d, ratio, slope in ((-60.0, math.exp(-6), 1.0), (60.0, math.exp(6), 1.0), (300.0, math.exp(20), 0.0)):
        a = 2.0 if d < 0 else -2.0  # the side that is not clipped
        logp = zeros.index_fill(1, torch.tensor([3]), d)
        loss, grad = gradient(LOSSES[name], (logp, zeros, zeros + a, one))
        assert float(loss) == pytest.approx(-a * ratio, rel=1e-12)
        torch.testing.assert_close(grad, zeros - slope * a * ratio / 10, rtol=1e-12, atol=0)


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


def test_only_values_beyond_the_bound_count_as_clipped():
    """Of 1000 values nearer than 0.2 none does, though old + (v - old) rounds; of those beyond it each that is
    nearer to its return than the bound is."""
    draw = torch.Generator().manual_seed(0)
    old, values = 0.02 * torch.randn(2, 1, 1000, generator=draw)
    mask = torch.ones_like(old)
    within = value_loss(values, old, old * 0, mask, 0.2)
    assert within.metrics["critic/clip_frac"].sum() == 0
    assert torch.equal(within.loss, values.square() / 2)
    assert value_loss(values + 0.5, old, old + 1, mask, 0.2).metrics["critic/clip_frac"].sum() == 1000
