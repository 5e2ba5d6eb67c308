import json

from lightrft.prompts.sampler import PromptSampler
from lightrft.types import Prompt

PROMPTS = [Prompt(id=name, messages=()) for name in "abcde"]


def ids(prompts):
    return [prompt.id for prompt in prompts]


def test_every_episode_is_a_permutation_and_nothing_is_dropped_at_its_end():
    sampler = PromptSampler(PROMPTS, seed=1)
    stream = sampler.take(3) + sampler.take(4) + sampler.take(8)
    assert [prompt.position for prompt in stream] == list(range(15))
    for start in (0, 5, 10):
        assert sorted(ids(stream[start : start + 5])) == list("abcde")


def test_the_order_depends_on_seed_and_episode_alone():
    stream = ids(PromptSampler(PROMPTS, seed=1).take(50))
    assert stream == ids(PromptSampler(PROMPTS, seed=1).take(50))
    assert stream != ids(PromptSampler(PROMPTS, seed=2).take(50))
    assert len({tuple(stream[start : start + 5]) for start in range(0, 50, 5)}) > 5


def test_given_back_prompts_come_first_in_their_order_and_across_an_episode_end():
    sampler = PromptSampler(PROMPTS, seed=1)
    taken = sampler.take(7)
    sampler.give_back(taken[5:])
    sampler.give_back(taken[3:5])
    assert sampler.take(4) == taken[3:]
    assert sampler.take(1)[0].position == 7


def test_episode_counts_what_was_taken_and_not_given_back():
    sampler = PromptSampler(PROMPTS, seed=1)
    taken = sampler.take(6)
    assert sampler.episode == 6 / 5
    sampler.give_back(taken[4:])
    assert sampler.episode == 4 / 5


def test_a_restored_sampler_goes_on_with_the_same_prompts():
    sampler = PromptSampler(PROMPTS, seed=3)
    sampler.give_back(sampler.take(8)[6:])
    saved = json.loads(json.dumps(sampler.state()))
    restored = PromptSampler(PROMPTS, seed=3)
    restored.load_state(saved)
    assert restored.take(9) == sampler.take(9)
    assert restored.state() == sampler.state()
