"""The golden numbers (float64 numpy, analytic gradients checked by central differences) against our functions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lightrft.algorithms.estimator import AdvantageSettings, load_estimator
from lightrft.algorithms.functional import Counts, aggregate, kl_penalty
from lightrft.algorithms.losses import ppo_loss
from lightrft.args.groups.algorithm import AlgorithmArgs

GOLDEN = json.loads((Path(__file__).parent / "golden_ragged8.json").read_text())
FIXTURE = GOLDEN["fixtures"]["ragged8"]
# The fixture's own tolerances: float64 sums of 40 terms; float32 with its 6e-8 a rounding, and exp of up to 1.
TOLERANCE = {torch.float64: {"rtol": 1e-9, "atol": 1e-12}, torch.float32: {"rtol": 2e-5, "atol": 2e-6}}
FOR_OTHERS = {"dual_clip", "is_kind", "entropy_ratio"}  # what group_norm's loss has no flag for yet
BOTH = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])


def cases(op, **params):
    found = [c for c in GOLDEN["cases"] if c["op"] == op and not FOR_OTHERS & c["params"].keys()]
    found = [c for c in found if all(c["params"].get(name) == value for name, value in params.items())]
    assert found, f"no golden case of {op}"
    return pytest.mark.parametrize("case", found, ids=[c["name"] for c in found])


def column(name, dtype):
    return torch.tensor(FIXTURE[name], dtype=dtype)


def counts(const_len=16):
    """Counted from the fixture's lists, not by our own code."""
    lengths = [sum(row) for row in FIXTURE["mask"]]
    per_group = {g: sum(n for n, h in zip(lengths, FIXTURE["groups"], strict=True) if h == g) for g in (0, 1)}
    group_tokens = torch.tensor([float(per_group[g]) for g in FIXTURE["groups"]])
    return Counts(tokens=39, sequences=8, rows=8, groups=2, max_new_tokens=const_len), group_tokens


def advantages(case, dtype):
    if case["params"].get("adv") == "adv_tokens":
        return column("adv_tokens", dtype)
    return column("adv_seq", dtype)[:, None].expand(8, 10)


def policy_loss(case, dtype, logp, rows=None, junk=None):
    """The scalar of some rows of the fixture, with `junk` in the padding of every input."""
    rows = list(range(8)) if rows is None else rows
    mask = column("mask", torch.long)[rows]
    inputs = [logp[rows], column("old_logp", dtype)[rows], advantages(case, dtype)[rows]]
    if junk is not None:
        inputs = [torch.where(mask == 1, value, junk) for value in inputs]
    args = AlgorithmArgs(clip_range=case["params"]["eps_low"], clip_range_higher=case["params"]["eps_high"])
    found = ppo_loss(*inputs, mask, args)
    step, group_tokens = counts(case["params"].get("const_len", 16))
    return aggregate(found.loss, mask, case["params"]["agg"], step, group_tokens.to(dtype)[rows]), found.metrics


def expect(found, wanted, dtype):
    torch.testing.assert_close(found.detach(), torch.tensor(wanted, dtype=dtype), **TOLERANCE[dtype])


@BOTH
@cases("ppo")
def test_clipped_loss_has_the_golden_value_gradient_and_metrics(case, dtype):
    logp = column("logp", dtype).requires_grad_()
    loss, metrics = policy_loss(case, dtype, logp)
    loss.backward()
    wanted = case["outputs"]
    expect(loss, wanted["loss"], dtype)
    expect(logp.grad, wanted["grad"], dtype)
    mask = column("mask", dtype)
    for ours, theirs in {
        "clip_frac": "clip_frac",
        "clip_frac_high": "clip_frac_high",
        "clip_frac_low": "clip_frac_low",
        "approx_kl": "approx_kl_k3",
    }.items():
        expect((metrics[f"policy/{ours}"] * mask).sum() / mask.sum(), wanted[theirs], dtype)


@pytest.mark.parametrize("junk", [float("nan"), float("inf"), -1e30])
@cases("ppo", agg="seq-mean-token-mean")
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
def test_kl_as_a_loss_has_the_golden_value_and_gradient(case, dtype):
    logp, mask = column("logp", dtype).requires_grad_(), column("mask", torch.long)
    tokens = kl_penalty(logp, column("ref_logp", dtype), mask, case["params"]["kind"])
    loss = aggregate(tokens, mask, case["params"]["agg"], counts()[0])
    loss.backward()
    expect(tokens, case["outputs"]["kl_tokens"], dtype)
    expect(loss, case["outputs"]["loss"], dtype)
    expect(logp.grad, case["outputs"]["grad"], dtype)


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_kl_is_untouched_by_nan_in_the_padding(kind):
    mask = column("mask", torch.long)
    logp = column("logp", torch.float64).masked_fill(mask == 0, float("nan")).requires_grad_()
    ref = column("ref_logp", torch.float64).masked_fill(mask == 0, float("nan"))
    tokens = kl_penalty(logp, ref, mask, kind)
    tokens.sum().backward()
    assert bool(tokens[mask == 0].eq(0).all()) and bool(logp.grad[mask == 0].eq(0).all())
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
def test_group_norm_has_the_golden_advantages(case, dtype, batch_of):
    rewards = torch.tensor(case["params"]["rewards"], dtype=dtype)
    groups = torch.tensor(case["params"]["groups"])
    batch = batch_of([((1, 5, 6), (0, 1, 1))] * 8, rewards=rewards, group=groups)
    found = load_estimator("group_norm").advantage(batch, AdvantageSettings()).advantages
    assert found.dtype == torch.float32
    wanted = torch.tensor(case["outputs"]["advantages"], dtype=torch.float64)
    # Statistics in float64, then one rounding to float32 (6e-8): tighter than the fixture's tolerance.
    torch.testing.assert_close(found[:, 1].double(), wanted, rtol=1e-7, atol=0)
    assert bool(found[:, 0].eq(0).all()) and torch.equal(found[:, 1], found[:, 2])


@BOTH
@cases("total")
def test_policy_and_kl_share_their_weights_in_the_total(case, dtype):
    params, wanted = case["params"], case["outputs"]
    logp, mask = column("logp", dtype).requires_grad_(), column("mask", torch.long)
    policy = policy_loss(case, dtype, logp)[0]
    tokens = kl_penalty(logp, column("ref_logp", dtype), mask, params["kl_kind"])
    kl = aggregate(tokens, mask, params["agg"], counts()[0])
    loss = policy + params["kl_coef"] * kl
    loss.backward()
    expect(policy, wanted["policy_loss"], dtype)
    expect(kl, wanted["kl_loss"], dtype)
    expect(loss - params["entropy_coef"] * wanted["entropy_mean"], wanted["loss"], dtype)
    expect(logp.grad, wanted["grad"], dtype)  # the entropy bonus has no gradient with respect to logp
