from __future__ import annotations

import pytest

from lightrft.rollouts.statistics import rollout_metrics


def test_rewards_are_over_valid_samples_and_parts_over_those_that_have_them(make_rollout):
    rollouts = [
        make_rollout([1], [5, 6], total=1.5, parts={"maths": 1.0, "format": 0.5}),
        make_rollout([1], [5] * 6, total=0.5, parts={"maths": 0.0, "format": 0.5}, finish="length"),
        make_rollout([1], [5], total=4.0, parts={"code": 3.0, "format": 1.0}),
        make_rollout([1], [5] * 3, error="raised", parts={"maths": 100.0}),
    ]
    assert rollout_metrics(rollouts) == pytest.approx(
        {
            "reward/mean": 2.0,
            "reward/std": ((0.25 + 2.25 + 4.0) / 3) ** 0.5,
            "reward/maths": 0.5,
            "reward/code": 3.0,
            "reward/format": 2 / 3,
            "reward/invalid_frac": 0.25,
            "rollout/length_mean": 3.0,
            "rollout/length_max": 6.0,
            "rollout/truncated_frac": 0.25,
        }
    )
