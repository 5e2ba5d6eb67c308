import json
from collections import Counter

import numpy as np

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


def test_without_shares_the_order_is_numpys_permutation_of_seed_and_episode():
    """What every run so far has had; a checkpoint of then goes on with it."""
    orders = [np.random.default_rng((7, episode)).permutation(5) for episode in range(3)]
    assert ids(PromptSampler(PROMPTS, seed=7).take(15)) == ["abcde"[index] for order in orders for index in order]


# Several sources in shares: six prompts of a, three of b, one of c; the places of an episode are 2, 3 and 5.

MIXED = [
    Prompt(id=f"{name}{index}", messages=(), origin=origin)
    for origin, (name, count) in enumerate((("a", 6), ("b", 3), ("c", 1)))
    for index in range(count)
]
SHARES = (0.2, 0.3, 0.5)


def mixed(seed=1):
    return PromptSampler(MIXED, seed, SHARES)


def test_an_episode_has_as_many_places_as_prompts_in_the_shares_given():
    stream = mixed().take(40)
    assert [prompt.position for prompt in stream] == list(range(40))
    for start in range(0, 40, 10):
        assert Counter(name[0] for name in ids(stream[start : start + 10])) == {"a": 2, "b": 3, "c": 5}
    assert mixed().episode == 0
    sampler = mixed()
    sampler.take(15)
    assert sampler.episode == 1.5


def test_a_source_goes_through_all_its_prompts_before_one_comes_again():
    """Across episodes: the six of a take three of them, the one of c comes five times in each."""
    stream = ids(mixed().take(120))
    own = {name: [each for each in stream if each[0] == name] for name in "abc"}
    for name, size in (("a", 6), ("b", 3), ("c", 1)):
        passes = [own[name][start : start + size] for start in range(0, len(own[name]), size)]
        assert all(sorted(each) == [f"{name}{index}" for index in range(size)] for each in passes)
    assert len({tuple(own["a"][start : start + 6]) for start in range(0, 24, 6)}) > 1


def test_the_places_are_shuffled_anew_in_each_episode_and_by_the_seed():
    def patterns(seed):
        stream = ids(mixed(seed).take(60))
        return ["".join(name[0] for name in stream[start : start + 10]) for start in range(0, 60, 10)]

    assert len(set(patterns(1))) == 6
    assert patterns(1) != patterns(2)


def test_a_position_alone_tells_its_prompt():
    """Read in any order, as a resumed run with a queue does: the same as one after the other."""
    stream = mixed().take(47)
    sampler = mixed()
    for position in (46, 3, 20, 0, 33):
        sampler.load_state({"next": 47, "queue": [position]})
        assert sampler.take(1) == [stream[position]]


def test_given_back_and_restored_with_shares():
    sampler = mixed()
    taken = sampler.take(13)
    sampler.give_back(taken[9:])
    restored = mixed()
    restored.load_state(json.loads(json.dumps(sampler.state())))
    assert restored.take(20) == sampler.take(20)
    assert restored.episode == sampler.episode == 2.9


def test_sources_do_not_share_their_randomness():
    """Two sources of one size, and the places themselves, are drawn from seeds of their own."""
    prompts = [Prompt(id=f"{name}{index}", messages=(), origin=origin) for origin, name in enumerate("ab")
               for index in range(20)]  # fmt: skip
    stream = ids(PromptSampler(prompts, 1, (1, 1)).take(40))
    first, second = ([each[1:] for each in stream if each[0] == name] for name in "ab")
    assert first != second


def test_each_pass_of_a_source_is_numpys_permutation_of_seed_source_and_pass():
    """Passes count from 1: that of number 0 would be the seed of an episode's places, since numpy reads (7, 1, 0) as
    (7, 1). What every run so far has had."""
    stream = ids(mixed(seed=7).take(120))
    for source, (name, size) in enumerate((("a", 6), ("b", 3))):
        own = [each for each in stream if each[0] == name]
        orders = [
            np.random.default_rng((7, source, visit)).permutation(size) for visit in range(1, len(own) // size + 1)
        ]
        assert own == [f"{name}{index}" for order in orders for index in order]
