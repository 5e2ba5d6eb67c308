from __future__ import annotations

from dataclasses import asdict
from types import SimpleNamespace

import pytest

from lightrft.evaluation import Evaluator, summarise, wilson_interval
from lightrft.loop.progress import describe
from lightrft.ranks.base import ONE_RANK
from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.intake import Intake
from lightrft.types import Prompt


@pytest.mark.parametrize(
    "successes, n, low, high",
    [
        (8, 10, 0.4902, 0.9433),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (50, 100, 0.4038, 0.5962),
        (1, 1, 0.2065, 1),
    ],
)
def test_wilson_intervals_as_in_tables(successes, n, low, high):
    found = wilson_interval(successes, n)
    assert found == pytest.approx((low, high), abs=5e-5)  # the tables have four digits


def test_the_rate_lies_in_its_interval_also_after_rounding():
    """An error bar of -1e-16 would stop the plots."""
    for n in range(1, 300):
        for successes in (0, 1, n - 1, n):
            low, high = wilson_interval(successes, n)
            assert 0.0 <= low <= successes / n <= high <= 1.0, (successes, n)


def test_accuracy_counts_full_marks_of_the_first_reward_among_valid_samples(make_rollout):
    rollouts = [
        make_rollout([1], [5, 6], total=1.5, parts={"exact": 1.0, "format": 0.5}),
        make_rollout([1], [5], total=1.9, parts={"exact": 0.9, "format": 1.0}, finish="length"),
        make_rollout([1], [5], total=1.0, parts={"exact": 0.0, "format": 1.0}),
        make_rollout([1], [5] * 6, error="raised", finish="length"),
        make_rollout([1], [5] * 5, total=0.6, parts={"exact": 0.1 * 3 + 0.7, "format": -0.4}),  # 1 to rounding
    ]
    found = summarise(rollouts, "exact")
    assert (found.accuracy, found.n, found.invalid) == (0.5, 4, 1)
    assert (found.ci_low, found.ci_high) == wilson_interval(2, 4)
    assert found.error == "raised" and describe(asdict(found)).endswith(" on 4 prompts, 1 invalid (raised)")
    assert found.reward_mean == pytest.approx(5.0 / 4, rel=1e-14)  # of valid samples
    assert (found.length_mean, found.truncated_frac) == (3.0, 0.4)  # of all
    assert summarise(rollouts, "format").accuracy == 0.5


def test_where_the_first_reward_does_not_apply_the_next_one_judges(make_rollout):
    rollouts = [
        make_rollout([1], [5], total=1.0, parts={"maths": 1.0}),
        make_rollout([1], [5], total=0.2, parts={"code": 0.2, "format": 1.0}),
        make_rollout([1], [5], total=2.0, parts={"code": 1.0, "format": 1.0}),
        make_rollout([1], [5], total=1.0, parts={"maths": 0.0, "format": 1.0}),
    ]
    found = summarise(rollouts, "maths")
    assert (found.accuracy, found.n, found.invalid, found.error) == (0.5, 4, 0, None)
    assert describe(asdict(found)).endswith(" on 4 prompts")


def test_an_evaluation_without_valid_samples_has_no_accuracy_and_says_why(make_rollout):
    """0 would be an accuracy. Nobody gets a number: not the trackers, not the plots, not the console."""
    found = summarise([make_rollout([1], [5], error=error) for error in ("raised", "late", "late")], "exact")
    assert (found.n, found.invalid, found.error) == (0, 3, "late")
    assert found.accuracy is found.ci_low is found.ci_high is found.reward_mean is None
    assert found.metrics().keys() == {"eval/n", "eval/invalid", "eval/length_mean", "eval/truncated_frac"}
    assert describe(asdict(found)) == "none: not one of 3 responses could be judged (late)"


def test_metrics_have_their_prefix(make_rollout):
    found = summarise([make_rollout([1], [5], total=1.0, parts={"exact": 1.0})], "exact").metrics()
    assert found["eval/accuracy"] == 1.0 and found["eval/n"] == 1.0
    assert all(name.startswith("eval/") and isinstance(value, float) for name, value in found.items())


def test_every_evaluation_asks_for_the_same(make_rollout):
    calls = []

    class Maker:
        ranks, at_once = ONE_RANK, 4
        intake = Intake(SimpleNamespace(vision=None), ONE_RANK, skips=False)

        def make(self, *arguments):
            calls.append(arguments)
            return [make_rollout([1], [5], total=1.0, parts={"exact": 1.0})]

        def stats(self, prefix):
            return {f"{prefix}batches": float(len(calls))}

    prompts, sampling = [Prompt(id="a", messages=())], Sampling(4, temperature=0.0)
    evaluator = Evaluator(Maker(), prompts, sampling, "exact")
    assert evaluator.evaluate() == evaluator.evaluate()
    assert evaluator.stats() == {"perf/eval_batches": 2.0}
    assert calls == [(prompts, 0, 1, sampling)] * 2  # one sample each, and seeds that do not know the step
