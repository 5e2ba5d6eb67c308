"""KL, shares of a step, padding and the rounding of advantages against the golden numbers."""

from __future__ import annotations

import pytest
import torch
from golden import BOTH, advantages, cases, column, counts, expect, mask

from lightrft.algorithms.estimator import AdvantageSettings, load_estimator
from lightrft.algorithms.functional import aggregate, kl_penalty
from lightrft.algorithms.losses import clipped_ratio_loss
from lightrft.ranks.base import ONE_RANK


def policy_loss(case, dtype, logp, rows=None, junk=None):
    """The scalar of some rows of the fixture, with `junk` in the padding of every input."""
    rows = list(range(8)) if rows is None else rows
    kept = mask()[rows]
    inputs = [logp[rows], column("old_logp", dtype)[rows], advantages(case, dtype)[rows]]
    if junk is not None:
        inputs = [torch.where(kept == 1, value, junk) for value in inputs]
    found = clipped_ratio_loss(*inputs, kept, case["params"]["eps_low"], case["params"]["eps_high"], None)
    step, group_tokens = counts(case["params"].get("const_len", 16))
    return aggregate(found.loss, kept, case["params"]["agg"], step, group_tokens.to(dtype)[rows]), found.metrics


@pytest.mark.parametrize("junk", [float("nan"), float("inf"), -1e30])
@cases("ppo", without="is_kind")
def test_padding_reaches_neither_value_nor_gradient(case, junk):
    plain, padded = (column("logp", torch.float64).requires_grad_() for _ in range(2))
    loss = policy_loss(case, torch.float64, plain)[0]
    with_junk, metrics = policy_loss(case, torch.float64, padded, junk=junk)
    loss.backward()
    with_junk.backward()
    assert torch.equal(loss, with_junk)  # the same operations on the same numbers: no tolerance
    assert torch.equal(plain.grad, padded.grad)
    assert all(bool(value.isfinite().all()) for value in metrics.values())


@BOTH
@cases("kl_loss")
def test_kl_as_a_loss(case, dtype):
    logp = column("logp", dtype).requires_grad_()
    tokens = kl_penalty(logp, column("ref_logp", dtype), mask(), case["params"]["kind"])
    loss = aggregate(tokens, mask(), case["params"]["agg"], counts()[0])
    loss.backward()
    expect(tokens, case["outputs"]["kl_tokens"], dtype)
    expect(loss, case["outputs"]["loss"], dtype)
    expect(logp.grad, case["outputs"]["grad"], dtype)


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_kl_is_untouched_by_nan_in_the_padding(kind):
    logp = column("logp", torch.float64).masked_fill(mask() == 0, float("nan")).requires_grad_()
    ref = column("ref_logp", torch.float64).masked_fill(mask() == 0, float("nan"))
    tokens = kl_penalty(logp, ref, mask(), kind)
    tokens.sum().backward()
    assert bool(tokens[mask() == 0].eq(0).all()) and bool(logp.grad[mask() == 0].eq(0).all())
    assert bool(logp.grad.isfinite().all())


@BOTH
@cases("sharded")
def test_shards_sum_to_the_loss_and_gradient_of_the_whole_step(case, dtype):
    logp, total = column("logp", dtype).requires_grad_(), torch.zeros((), dtype=dtype)
    for rank, local in zip(case["params"]["shards"], case["outputs"]["local_sum_form"], strict=True):
        for rows, wanted in zip(rank, local, strict=True):
            loss = policy_loss(case, dtype, logp, rows)[0]
            expect(loss, wanted, dtype)
            loss.backward()
            total = total + loss.detach()
    expect(total, case["outputs"]["loss"], dtype)
    expect(logp.grad, case["outputs"]["grad"], dtype)


@BOTH
@cases("group_advantage", kind="group_norm")
def test_advantages_are_rounded_once(case, dtype, batch_of):
    """Statistics in float64, then one rounding to float32 (6e-8): tighter than the fixture's tolerance."""
    rewards, groups = torch.tensor(case["params"]["rewards"], dtype=dtype), torch.tensor(case["params"]["groups"])
    batch = batch_of([((1, 5, 6), (0, 1, 1))] * 8, rewards=rewards, group=groups)
    filled, _ = load_estimator("group_norm").fill_advantages(batch, AdvantageSettings(), ONE_RANK)
    found = filled.advantages
    assert found.dtype == torch.float32
    wanted = torch.tensor(case["outputs"]["advantages"], dtype=torch.float64)
    torch.testing.assert_close(found[:, 1].double(), wanted, rtol=1e-7, atol=0)
    assert bool(found[:, 0].eq(0).all()) and torch.equal(found[:, 1], found[:, 2])
