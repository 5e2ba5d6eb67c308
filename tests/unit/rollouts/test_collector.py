from __future__ import annotations

import math

import pytest

from lightrft.prompts.sampler import PromptSampler
from lightrft.rollouts.collector import Collector, RolloutMaker
from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.engines.noise import response_seed
from lightrft.rollouts.statistics import rollout_metrics
from lightrft.types import Generation, Prompt, Reward

SAMPLING = Sampling(4)


class Engine:
    """Answers the k-th seed of a prompt with the digit k, then the end."""

    version = 11

    def __init__(self):
        self.calls = []

    def generate(self, requests, sampling):
        self.calls.append((requests, sampling))
        return [
            [Generation(r.prompt_ids, (4 + k, 2), (-0.5, -0.25), "stop") for k in range(len(r.seeds))] for r in requests
        ]


class Rewards:
    """The number in the response, times 100 plus the prompt's position: misplaced rewards would show."""

    def score(self, rollouts):
        return [Reward(100.0 * r.group + float(r.response), {"rule": 1.0}) for r in rollouts]


@pytest.fixture
def parts(tiny_tokenizer):
    engine = Engine()
    prompts = [Prompt(id=f"p{i}", messages=(), token_ids=(7, i)) for i in range(5)]
    return engine, RolloutMaker(engine, Rewards(), tiny_tokenizer, seed=42), prompts


def test_rollouts_carry_their_prompt_group_text_reward_and_version(parts):
    engine, maker, prompts = parts
    placed = PromptSampler(prompts, seed=0).take(3)
    found = maker.make(placed, step=6, n=2, sampling=SAMPLING)
    assert [r.group for r in found] == [0, 0, 1, 1, 2, 2] == [r.prompt.position for r in found]
    assert [r.prompt.id for r in found] == [p.id for p in placed for _ in range(2)]
    assert [r.prompt_ids for r in found] == [p.token_ids for p in placed for _ in range(2)]
    assert [r.response for r in found] == ["0", "1"] * 3  # the end token is not shown to rewards
    assert [r.reward.total for r in found] == [0.0, 1.0, 100.0, 101.0, 200.0, 201.0]
    assert {r.policy_version for r in found} == {11}
    assert {(r.response_mask, r.rollout_logprobs, r.finish_reason) for r in found} == {((1, 1), (-0.5, -0.25), "stop")}


def test_seeds_name_run_step_position_prompt_and_sample(parts):
    engine, maker, prompts = parts
    [placed] = PromptSampler(prompts, seed=0).take(1)
    maker.make([placed], step=6, n=3, sampling=SAMPLING)
    [(requests, sampling)] = engine.calls
    assert requests[0].seeds == tuple(response_seed(42, 6, 0, placed.id, k) for k in range(3))
    assert requests[0].n == 3 and requests[0].prompt_ids == placed.token_ids and sampling is SAMPLING


def test_a_step_goes_to_the_engine_in_batches_of_prompts_and_loses_none(parts):
    engine, maker, prompts = parts
    collector = Collector(maker, SAMPLING, n_samples=2, rollout_batch_size=3, prompts_per_step=8)
    sampler = PromptSampler(prompts, seed=0)
    found = collector.collect(sampler, step=1)
    assert [len(requests) for requests, _ in engine.calls] == [3, 3, 2]
    assert [r.group for r in found] == [position for position in range(8) for _ in range(2)]
    assert [r.group for r in collector.collect(sampler, step=2)][0] == 8  # the stream goes on


def test_a_prompt_that_comes_twice_in_a_step_makes_two_groups_with_other_seeds(parts):
    engine, maker, prompts = parts
    sampler = PromptSampler(prompts[:1], seed=0)
    found = Collector(maker, SAMPLING, n_samples=2, rollout_batch_size=2, prompts_per_step=2).collect(sampler, 1)
    assert {r.prompt.id for r in found} == {"p0"} and [r.group for r in found] == [0, 0, 1, 1]
    assert len({seed for request in engine.calls[0][0] for seed in request.seeds}) == 4


def test_statistics_by_hand(make_rollout):
    rollouts = [
        make_rollout([1], [5, 6], total=1.0, parts={"exact": 1.0, "format": 0.0}),
        make_rollout([1], [5, 6, 7, 8], total=4.0, parts={"exact": 0.0, "format": 2.0}, finish="length"),
        make_rollout([1], [5], error="raised"),
        make_rollout([1], [5], total=1.0, parts={"exact": 1.0, "format": 1.0}),
    ]
    found = rollout_metrics(rollouts)
    wanted = {
        "reward/mean": 2.0,
        "reward/std": math.sqrt((1 + 4 + 1) / 3),
        "reward/exact": 2 / 3,
        "reward/format": 1.0,
        "reward/invalid_frac": 0.25,
        "rollout/length_mean": 2.0,
        "rollout/length_max": 4.0,
        "rollout/truncated_frac": 0.25,
    }
    assert found.keys() == wanted.keys()
    assert found == pytest.approx(wanted, rel=1e-14)  # float64
