"""Every advantage, reward stage and controller against the golden numbers."""

from __future__ import annotations

import math

import torch
from golden import BOTH, FIXTURE, cases, column, expect, mask

from lightrft.algorithms.advantages import (
    discounted_returns,
    generalized_advantages,
    group_baseline,
    token_rewards,
)
from lightrft.algorithms.control import KLController, TemperatureSchedule
from lightrft.algorithms.shaping import RunningMoments, clipped_rewards, overlong_penalty
from lightrft.algorithms.whitening import clipped_advantages, whitened
from lightrft.groups import varied_groups

KINDS = {
    "group_norm": "scaled",
    "cpgd_std": "scaled",
    "dr_grpo": "centred",
    "reinforce_baseline": "centred",
    "cpgd_equal": "centred",
    "rloo": "leave_one_out",
    "cpgd_clip_filter": "clip_filter",
}


def earned(case, dtype, rewards):
    p = case["params"]
    old, ref = column("old_logp", dtype), column("ref_logp", dtype)
    return token_rewards(rewards, mask(), old, ref, p["kl_coef"], p.get("kl_kind", "k1"))


@BOTH
@cases("group_advantage")
def test_group_baselines(case, dtype):
    p = case["params"]
    rewards, groups = torch.tensor(p["rewards"], dtype=dtype), torch.tensor(p["groups"])
    expect(group_baseline(rewards, groups, KINDS[p["kind"]])[0], case["outputs"]["advantages"], dtype)


@BOTH
@cases("reinforce")
def test_reinforce(case, dtype):
    p, wanted = case["params"], case["outputs"]
    rewards = column("rewards", dtype)
    if p.get("baseline"):
        rewards = group_baseline(rewards, torch.tensor(FIXTURE["groups"]), "centred")[0].to(dtype)
    each = earned(case, dtype, rewards)
    expect(each, wanted["token_rewards"], dtype)
    found = discounted_returns(each, mask(), p["gamma"])
    expect(found, wanted["returns"], dtype)
    found = whitened(found, mask()) if p.get("norm", True) else found
    if p.get("adv_clip"):
        found, share = clipped_advantages(found, mask(), p["adv_clip"])
        expect(share, wanted["advantage_clip_frac"], dtype)
    expect(found, wanted["advantages"], dtype)


@BOTH
@cases("gae")
def test_generalized_advantages(case, dtype):
    p, wanted = case["params"], case["outputs"]
    each = earned(case, dtype, column("rewards", dtype))
    expect(each, wanted["token_rewards"], dtype)
    raw, returns = generalized_advantages(each, column("old_values", dtype), mask(), p["gamma"], p["lam"])
    expect(raw, wanted["advantages_raw"], dtype)
    expect(returns, wanted["returns"], dtype)
    expect(whitened(raw, mask()), wanted["advantages"], dtype)


@BOTH
@cases("running_norm")
def test_running_moments(case, dtype):
    moments = RunningMoments()
    for values, wanted in zip(case["params"]["batches"], case["outputs"]["steps"], strict=True):
        moments.update(values)
        expect([moments.count, moments.mean, moments.std], [wanted["count"], wanted["mean"], wanted["std"]])
        rewards = torch.tensor(values, dtype=dtype)
        expect(moments.normalised(rewards, minus_mean=case["params"]["minus_mean"]), wanted["normalised"], dtype)


@BOTH
@cases("reward_pipeline")
def test_the_order_of_the_reward_pipeline(case, dtype):
    p, wanted = case["params"], case["outputs"]
    lengths = mask().sum(-1).to(dtype)
    rewards = column("rewards", dtype) + overlong_penalty(lengths, p["max_len"], p["buffer_len"], p["factor"])
    expect(rewards, wanted["penalised"], dtype)
    moments = RunningMoments()
    moments.update(p["history"])
    moments.update(rewards.tolist())
    expect([moments.mean, moments.std], [wanted["running_mean"], wanted["running_std"]], dtype)
    rewards = moments.normalised(rewards, minus_mean=p["minus_mean"])
    expect(rewards, wanted["normalised"], dtype)
    if p["reward_clip"]:
        rewards, share = clipped_rewards(rewards, p["reward_clip"])
        expect(share, wanted["reward_clip_frac"], dtype)
    expect(rewards, wanted["clipped"], dtype)
    shaped = group_baseline(rewards, torch.tensor(FIXTURE["groups"]), KINDS[p["kind"]])[0]
    expect(shaped, wanted["shaped"], dtype)
    found = shaped[:, None] * mask()
    found = whitened(found, mask()) if p["advantages_norm"] else found
    found, share = clipped_advantages(found, mask(), p["advantage_clip"])
    expect(found, wanted["advantages"], dtype)
    expect(share, wanted["advantage_clip_frac"], dtype)


@BOTH
@cases("overlong")
def test_overlong_punishment(case, dtype):
    p = case["params"]
    lengths = torch.tensor(p["lengths"], dtype=dtype)
    expect(overlong_penalty(lengths, p["max_len"], p["buffer_len"], p["factor"]), case["outputs"]["penalty"], dtype)


@cases("dynamic_sampling")
def test_groups_that_vary(case):
    p = case["params"]
    rewards = [math.nan if value == "nan" else value for value in p["metric"]]
    kept = varied_groups(p["groups"], rewards)
    assert [float(group in kept) for group in p["groups"]] == case["outputs"]["keep"]


@cases("adaptive_kl")
def test_the_controller(case):
    p = case["params"]
    controller, found = KLController(p["init"], p["target"], p["horizon"]), []
    for kl, samples in p["updates"]:
        controller.update(kl, samples)
        found.append(controller.coefficient)
    expect(found, case["outputs"]["values"])


@cases("temperature_schedule")
def test_temperatures(case):
    p = case["params"]
    schedule = TemperatureSchedule(p["kind"], p["t0"], p["t1"], p["total"])
    expect([schedule.at(step) for step in p["steps"]], case["outputs"]["values"])
