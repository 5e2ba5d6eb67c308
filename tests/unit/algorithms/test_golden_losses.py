"""Every policy loss, weight and term of the total loss against the golden values and gradients."""

from __future__ import annotations

import pytest
import torch
from golden import BOTH, advantages, cases, column, counts, expect, mask, token_mean

from lightrft.algorithms.entropy_mask import entropy_threshold, high_entropy_mask
from lightrft.algorithms.functional import aggregate, kl_penalty
from lightrft.algorithms.importance import importance_weights
from lightrft.algorithms.losses import (
    clipped_log_ratio_loss,
    clipped_ratio_loss,
    drift_loss,
    geometric_mean_loss,
    sequence_ratio_loss,
    token_sequence_ratio_loss,
    value_loss,
)

IS_KINDS = {
    "token_truncate": "token_truncate",
    "token_mask": "token_mask",
    "seq_truncate": "sequence_truncate",
    "seq_mask": "sequence_mask",
    "geo_mask": "geometric",
}
SEQUENCE = "seq-mean-token-mean"
CLIPS, DISTANCES = ("clip_frac", "clip_frac_high", "clip_frac_low"), ("approx_kl_k1", "approx_kl_k3")


def reduced(tokens, mode, case=None):
    step, group_tokens = counts((case or {}).get("const_len", 16))
    return aggregate(tokens, mask(), mode, step, group_tokens.to(tokens.dtype))


def inputs(case, dtype):
    logp = column("logp", dtype).requires_grad_()
    return logp, (logp, column("old_logp", dtype), advantages(case, dtype), mask())


def expect_metrics(found, wanted, dtype, *names):
    for name in names:
        ours = found.metrics["policy/" + name.removesuffix("_k3")]
        expect(token_mean(ours), wanted[name], dtype)


@BOTH
@cases("ppo", without="entropy_ratio")
def test_clipped_ratios_dual_clip_and_importance_weights(case, dtype):
    p, wanted = case["params"], case["outputs"]
    logp, given = inputs(case, dtype)
    found = clipped_ratio_loss(*given, p["eps_low"], p["eps_high"], p.get("dual_clip"))
    weights = torch.ones_like(found.loss)
    if "is_kind" in p:
        old, rollout = column("old_logp", dtype), column("rollout_logp", dtype)
        weights = importance_weights(old, rollout, mask(), IS_KINDS[p["is_kind"]], p["is_lo"], p["is_hi"])
        expect(weights, wanted["is_w"], dtype)
    loss = reduced(weights * found.loss, p["agg"], p)
    loss.backward()
    expect(loss, wanted["loss"], dtype)
    expect(logp.grad, wanted["grad"], dtype)
    expect_metrics(found, wanted, dtype, *CLIPS, *DISTANCES, *(["dual_clip_frac"] if "dual_clip" in p else []))


@BOTH
@cases("ppo", given="entropy_ratio")
def test_the_tokens_of_high_entropy_alone(case, dtype):
    """The denominator stays that of all trained tokens."""
    p, wanted = case["params"], case["outputs"]
    logp, given = inputs(case, dtype)
    entropy = column("entropy", dtype)
    chosen = high_entropy_mask(entropy, mask(), entropy_threshold(entropy[mask() == 1], p["entropy_ratio"]))
    expect(chosen, wanted["token_sel"], dtype)
    loss = reduced(chosen * clipped_ratio_loss(*given, p["eps_low"], p["eps_high"], None).loss, p["agg"], p)
    loss.backward()
    expect(loss, wanted["loss"], dtype)
    expect(logp.grad, wanted["grad"], dtype)


@BOTH
@cases("gspo")
def test_sequence_ratios(case, dtype):
    p, wanted = case["params"], case["outputs"]
    logp, given = inputs(case, dtype)
    loss_of = token_sequence_ratio_loss if p.get("token_level") else sequence_ratio_loss
    found = loss_of(*given, p["eps_low"], p["eps_high"])
    loss = reduced(found.loss, SEQUENCE)
    loss.backward()
    expect(loss, wanted["loss"], dtype)
    expect(logp.grad, wanted["grad"], dtype)
    expect_metrics(found, wanted, dtype, "clip_frac", *DISTANCES)
    expect(found.row_metrics["policy/clip_frac_seq"].mean(), wanted["clip_frac_seq"], dtype)


@BOTH
@cases("gmpo")
def test_geometric_means(case, dtype):
    p, wanted = case["params"], case["outputs"]
    logp, given = inputs(case, dtype)
    found = geometric_mean_loss(*given, p["clip_low"], p["clip_high"])
    loss = reduced(found.loss, SEQUENCE)
    loss.backward()
    expect(loss, wanted["loss"], dtype)
    expect(logp.grad, wanted["grad"], dtype)
    expect_metrics(found, wanted, dtype, *CLIPS, *DISTANCES)


@BOTH
@cases("cpgd")
def test_clipped_log_ratios_and_drift(case, dtype):
    p, wanted = case["params"], case["outputs"]
    logp, given = inputs(case, dtype)
    policy = clipped_log_ratio_loss(*given, p["eps_low"], p["eps_high"])
    drift = drift_loss(logp, column("old_logp", dtype), mask(), p["drift_c"])
    policy_loss, drift_term = (reduced(found.loss, p["agg"], p) for found in (policy, drift))
    (policy_loss + p["alpha"] * drift_term).backward()
    expect(logp.grad, wanted["grad"], dtype)
    expect(policy_loss, wanted["policy_loss"], dtype)
    expect(drift_term, wanted["drift_loss"], dtype)
    expect(policy_loss + p["alpha"] * drift_term, wanted["loss"], dtype)
    expect_metrics(policy, wanted, dtype, "clip_frac", *DISTANCES)
    expect(token_mean(drift.metrics["policy/drift_clip_frac"]), wanted["drift_clip_frac"], dtype)


@BOTH
@cases("value_loss")
def test_the_critics_loss(case, dtype):
    wanted = case["outputs"]
    values = column("values", dtype).requires_grad_()
    found = value_loss(
        values, column("old_values", dtype), column("returns", dtype), mask(), case["params"].get("clip")
    )
    loss = reduced(found.loss, case["params"]["agg"])
    loss.backward()
    expect(loss, wanted["loss"], dtype)
    expect(values.grad, wanted["grad"], dtype)
    expect(token_mean(found.metrics["critic/clip_frac"]), wanted["value_clip_frac"], dtype)


@BOTH
@cases("total")
def test_the_total(case, dtype):
    """Policy + KL - entropy under one normaliser; the fixture's entropy carries no gradient."""
    p, wanted = case["params"], case["outputs"]
    logp, given = inputs(case, dtype)
    policy = reduced(clipped_ratio_loss(*given, p["eps_low"], p["eps_high"], None).loss, p["agg"])
    kl = reduced(kl_penalty(logp, column("ref_logp", dtype), mask(), p["kl_kind"]), p["agg"])
    entropy = reduced(column("entropy", dtype), p["agg"])
    total = policy + p["kl_coef"] * kl - p["entropy_coef"] * entropy
    total.backward()
    expect(total, wanted["loss"], dtype)
    expect(logp.grad, wanted["grad"], dtype)
    expect(kl, wanted["kl_loss"], dtype)
    expect(entropy, wanted["entropy_mean"], dtype)


def test_a_varying_advantage_is_not_averaged_silently():
    with pytest.raises(AssertionError, match="gspo_token"):
        sequence_ratio_loss(
            column("logp", torch.float64),
            column("old_logp", torch.float64),
            column("adv_tokens", torch.float64),
            mask(),
            0.2,
            0.3,
        )
