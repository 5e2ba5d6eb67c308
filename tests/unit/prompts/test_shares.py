from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightrft.errors import Refused
from lightrft.prompts.shares import apportion, check_shares, first_of_each
from lightrft.types import Prompt


def of(**counts):
    """a=2, b=1 -> prompts a0, a1 of source 0 and b0 of source 1."""
    return [
        Prompt(id=f"{name}{index}", messages=(), origin=origin)
        for origin, (name, count) in enumerate(counts.items())
        for index in range(count)
    ]


def ids(prompts):
    return " ".join(prompt.id for prompt in prompts)


@pytest.mark.parametrize(
    ("total", "shares", "parts"),
    [
        (10, (0.7, 0.2, 0.1), [7, 2, 1]),
        (10, (7, 2, 1), [7, 2, 1]),
        (4, (1, 1, 1), [2, 1, 1]),  # of equal remainders the first
        (5, (0.5, 0.3, 0.2), [3, 1, 1]),  # 2.5, 1.5, 1.0: one more for the first
        (7, (41, 39, 20), [3, 3, 1]),  # 2.87, 2.73, 1.40: one more for each of the first two
        (3, (0.9, 0.1), [3, 0]),
        (0, (1, 1), [0, 0]),
    ],
)
def test_the_largest_remainders_get_what_is_left(total, shares, parts):
    assert apportion(total, shares) == parts


@settings(deadline=None)
@given(st.integers(0, 10**6), st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=6))
def test_parts_sum_to_the_whole_and_are_within_one_of_their_share(total, shares):
    parts, whole = apportion(total, shares), sum(map(Fraction, shares))
    assert sum(parts) == total
    assert all(abs(part - total * Fraction(share) / whole) < 1 for part, share in zip(parts, shares, strict=True))


@pytest.mark.parametrize(
    ("most", "shares", "expected"),
    [
        (None, (), "a0 a1 a2 a3 b0 b1 c0 c1"),
        (8, (), "a0 a1 a2 a3 b0 b1 c0 c1"),
        (4, (), "a0 a1 b0 c0"),
        (5, (), "a0 a1 a2 b0 c0"),  # 2.5, 1.25, 1.25
        (1, (), "a0"),
        (5, (0.2, 0.2, 0.6), "a0 b0 c0 c1"),  # the last source has only two of its three
    ],
)
def test_the_first_of_each_source_are_kept(most, shares, expected):
    assert ids(first_of_each(of(a=4, b=2, c=2), most, shares)) == expected


def test_every_source_needs_a_prompt_and_a_place():
    check_shares(of(a=1, b=1), ["a", "b"], ())
    check_shares(of(a=3, b=1), ["a", "b"], (0.8, 0.2))
    with pytest.raises(Refused, match="^--max_samples leaves no prompt of b .--prompt_data_probs 0.9 0.1.; raise it"):
        check_shares(of(a=3), ["a", "b"], (0.9, 0.1))
    with pytest.raises(
        Refused, match="^--prompt_data_probs 9 1: b gets no place among the 4 of an episode; a share of"
    ):
        check_shares(of(a=3, b=1), ["a", "b"], (9, 1))
