from __future__ import annotations

import math

import pytest

from lightrft.algorithms.control import TemperatureSchedule
from lightrft.prompts.encoder import Encoder
from lightrft.prompts.sampler import PromptSampler
from lightrft.rollouts.collector import Collector, CollectSettings, RolloutMaker
from lightrft.rollouts.engines.base import EngineFailed, Sampling
from lightrft.rollouts.engines.noise import response_seed
from lightrft.rollouts.statistics import rollout_metrics
from lightrft.types import Generation, Prompt, Reward

SAMPLING = Sampling(4)
CONSTANT = TemperatureSchedule("constant", 1.0, 1.0, 0)


class Engine:
    """Answers the k-th seed of a prompt with the digit k, then the end."""

    version = 11

    def __init__(self):
        self.calls = []

    def stats(self):
        return {"batches": float(len(self.calls))}

    def renew(self):
        self.calls.append("renew")

    def generate(self, requests, sampling, *, at_once, enough=None):
        self.calls.append((requests, sampling, at_once))
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
    return engine, RolloutMaker(Encoder(tiny_tokenizer), engine, Rewards(), 42, 2, engine.renew), prompts


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


@pytest.mark.parametrize(
    ("stop", "ends"),
    [((), ["", "", ""]), (("1",), ["", "1", ""]), (("2", "7", "1"), ["", "1", "2"]), (("0", "00"), ["0", "", ""])],
)
def test_the_stop_text_that_ended_a_response_is_known(parts, stop, ends):
    _, maker, prompts = parts
    found = maker.make(prompts[:1], step=1, n=3, sampling=Sampling(4, stop=stop))
    assert [r.response for r in found] == ["0", "1", "2"]  # it stays there
    assert [r.stop_text for r in found] == ends


def test_of_two_stop_texts_that_end_a_response_the_longer_one_did(parts):
    class Twelve(Engine):
        def generate(self, requests, sampling, *, at_once, enough=None):
            return [[Generation(r.prompt_ids, (4 + 1, 4 + 2, 2), (-0.5,) * 3, "stop")] for r in requests]

    _, maker, prompts = parts
    maker.engine = Twelve()
    [found] = maker.make(prompts[:1], step=1, n=1, sampling=Sampling(4, stop=("2", "12")))
    assert (found.response, found.stop_text) == ("12", "12")


def test_seeds_name_run_step_position_prompt_and_sample(parts):
    engine, maker, prompts = parts
    [placed] = PromptSampler(prompts, seed=0).take(1)
    maker.make([placed], step=6, n=3, sampling=SAMPLING)
    [(requests, sampling, at_once)] = engine.calls
    assert requests[0].seeds == tuple(response_seed(42, 6, 0, placed.id, k) for k in range(3))
    assert requests[0].n == 3 and requests[0].prompt_ids == placed.token_ids and sampling is SAMPLING
    assert at_once == 2


def test_a_step_goes_to_the_engine_in_batches_of_prompts_and_loses_none(parts):
    engine, maker, prompts = parts
    collector = Collector(maker, SAMPLING, CONSTANT, CollectSettings(2, 3, 8))
    sampler = PromptSampler(prompts, seed=0)
    found = collector.collect(sampler, step=1)
    assert [len(requests) for requests, *_ in engine.calls] == [3, 3, 2]
    assert [r.group for r in found] == [position for position in range(8) for _ in range(2)]
    assert [r.group for r in collector.collect(sampler, step=2)][0] == 8  # the stream goes on


def test_a_prompt_that_comes_twice_in_a_step_makes_two_groups_with_other_seeds(parts):
    engine, maker, prompts = parts
    sampler = PromptSampler(prompts[:1], seed=0)
    found = Collector(maker, SAMPLING, CONSTANT, CollectSettings(2, 2, 2)).collect(sampler, 1)
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


class SomeVary:
    """Prompts at even positions get equal rewards, those at position 1 mod 4 an invalid one; only 3 mod 4 is kept."""

    def score(self, rollouts):
        found = []
        for index, rollout in enumerate(rollouts):
            broken = rollout.group % 4 == 1 and index % 2 == 0
            total = 1.0 if rollout.group % 2 == 0 else float(index % 2)
            found.append(Reward(math.nan if broken else total, error="broken" if broken else None))
        return found


class AllVary:
    def score(self, rollouts):
        return [Reward(float(index % 2)) for index in range(len(rollouts))]


def collector_of(parts, settings, rewards=None):
    engine, maker, prompts = parts
    maker.rewards = rewards or SomeVary()
    return Collector(maker, SAMPLING, CONSTANT, settings), PromptSampler(prompts, seed=0)


def test_groups_without_a_difference_are_replaced(parts):
    """Kept are 3, 7, 11, 15 ...: for 3 groups in batches of 4 prompts, positions 0 to 11 are drawn."""
    collector, sampler = collector_of(parts, CollectSettings(2, 4, 3, most_batches=9))
    found = collector.collect(sampler, 1)
    assert [r.group for r in found] == [3, 3, 7, 7, 11, 11]
    assert [len(requests) for requests, *_ in parts[0].calls] == [4, 4, 4]
    stats = collector.stats()
    assert stats["perf/batches"] == 3  # the engine's own count, under the name for training
    assert stats["rollout/batches"] == 3 and stats["rollout/varied_groups_frac"] == 0.25
    # each four prompts: two of reward 1 twice, one with 1.0 valid of two, one of 0 and 1
    assert stats["reward/sampled_mean"] == pytest.approx((4 + 1 + 1) / 7)
    assert sampler.take(1)[0].position == 12


def test_surplus_groups_are_dropped_and_their_prompts_come_again(parts):
    collector, sampler = collector_of(parts, CollectSettings(2, 4, 6, most_batches=9), AllVary())
    assert [r.group for r in collector.collect(sampler, 1)][::2] == [0, 1, 2, 3, 4, 5]
    assert [r.group for r in collector.collect(sampler, 2)][::2] == [6, 7, 8, 9, 10, 11]


def test_retries_are_bounded(parts):
    collector, sampler = collector_of(parts, CollectSettings(2, 4, 3, most_batches=2))
    assert [r.group for r in collector.collect(sampler, 1)] == [3, 3, 7, 7]


def test_prompts_that_are_replaced_are_drawn(parts):
    """Two passes over five prompts: of ten positions 3 and 7 vary. The batch that reaches the end is the last one, and
    what is given back is drawn once more."""
    collector, sampler = collector_of(parts, CollectSettings(2, 4, 3, most_batches=9, episodes=2))
    assert not collector.over(sampler)
    assert [r.group for r in collector.collect(sampler, 1)][::2] == [3, 7, 11]
    assert collector.over(sampler) and sampler.episode == 12 / 5
    collector, sampler = collector_of(parts, CollectSettings(2, 4, 9, most_batches=9, episodes=1))
    assert [r.group for r in collector.collect(sampler, 1)][::2] == [3, 7]
    assert len(parts[0].calls) == 3 + 2 and collector.over(sampler)
    collector, sampler = collector_of(parts, CollectSettings(2, 4, 1, most_batches=9, episodes=0.5), AllVary())
    ends = [collector.over(sampler) for _ in range(3) if collector.collect(sampler, 1)]
    assert ends == [False, False, True], (
        "one prompt of four is kept, and the others given back: 1, 2, 3 of five are used"
    )
    assert not collector_of(parts, CollectSettings(2, 4, 3, most_batches=9))[0].over(sampler)


def test_where_nothing_varies_there_is_nothing_to_train_on(parts):
    class Equal:
        def score(self, rollouts):
            return [Reward(1.0) for _ in rollouts]

    collector, sampler = collector_of(parts, CollectSettings(2, 4, 3, most_batches=2), Equal())
    found = collector.collect(sampler, 1)
    assert [r.group for r in found][::2] == [0, 1, 2, 3, 4, 5, 6, 7] and {sum(r.response_mask) for r in found} == {0}


def test_the_schedule_gives_each_step_its_temperature(parts):
    engine, maker, prompts = parts
    schedule = TemperatureSchedule("linear", 1.0, 0.5, 2)
    collector, sampler = Collector(maker, SAMPLING, schedule, CollectSettings(2, 2, 2)), PromptSampler(prompts, seed=0)
    for step in (1, 2, 3, 4):
        collector.collect(sampler, step)
    assert [sampling.temperature for _, sampling, _ in engine.calls] == [1.0, 0.75, 0.5, 0.5]
    assert collector.temperature(2) == 0.75


class Dying(Engine):
    """Dies in its first `deaths` generations."""

    deaths = 1

    def generate(self, requests, sampling, *, at_once, enough=None):
        if self.deaths:
            self.deaths -= 1
            raise EngineFailed("the engine's process is gone")
        return super().generate(requests, sampling, at_once=at_once, enough=enough)


def test_a_step_is_tried_once_more_on_a_fresh_engine(tiny_tokenizer, parts, capsys):
    whole, prompts = parts[1].make(parts[2], step=3, n=2, sampling=SAMPLING), parts[2]
    engine = Dying()
    maker = RolloutMaker(Encoder(tiny_tokenizer), engine, Rewards(), 42, 2, engine.renew)
    assert maker.make(prompts, step=3, n=2, sampling=SAMPLING) == whole
    assert engine.calls[0] == "renew" and len(engine.calls) == 2
    assert "step 3: the engine's process is gone; trying once more on a fresh engine" in capsys.readouterr().err
    engine.calls, engine.deaths = [], 2
    with pytest.raises(EngineFailed, match="step 3: the engine's process is gone"):
        maker.make(prompts, step=3, n=2, sampling=SAMPLING)


class Hasty(Engine):
    """Of the requests, those with an even prompt token are slow: they are given up where enough others are done."""

    def generate(self, requests, sampling, *, at_once, enough=None):
        whole = super().generate(requests, sampling, at_once=at_once)
        quick = [index for index, request in enumerate(requests) if request.prompt_ids[1] % 2]
        kept = set(range(len(requests))) if enough is None or len(quick) < enough else set(quick)
        return [made if index in kept else [] for index, made in enumerate(whole)]


def test_prompts_that_take_longest_are_given_up_and_come_again(parts, tiny_tokenizer):
    engine, prompts = Hasty(), parts[2]  # their tokens end in 0 to 4
    maker = RolloutMaker(Encoder(tiny_tokenizer), engine, Rewards(), 42, 2, engine.renew)
    collector = Collector(maker, SAMPLING, CONSTANT, CollectSettings(2, 2, 2, oversample=2.4))
    sampler = PromptSampler(prompts, seed=0)
    order = [prompt.token_ids[1] for prompt in PromptSampler(prompts, seed=0).take(5)]
    found = collector.collect(sampler, 1)  # ceil(2 * 2.4) = 5 are started, 1 and 3 are quick
    assert len(engine.calls[0][0]) == 5
    assert sorted({rollout.prompt_ids[1] for rollout in found}) == [1, 3] and len(found) == 4
    assert collector.stats()["rollout/given_up"] == 3.0
    again = [prompt.token_ids[1] for prompt in sampler.take(3)]
    assert again == [token for token in order if token % 2 == 0]


def test_of_more_groups_than_needed_the_first_are_kept(parts):
    collector, sampler = collector_of(parts, CollectSettings(2, 2, 2, oversample=1.5))
    found = collector.collect(sampler, 1)  # this engine finishes all three
    assert sorted({rollout.group for rollout in found}) == [0, 1]
    assert [prompt.position for prompt in sampler.take(2)] == [2, 3]
