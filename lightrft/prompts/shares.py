"""How many each source gets: of the places in an episode, or of the prompts of `--max_samples`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import islice

from lightrft.errors import Refused
from lightrft.types import Prompt


def apportion(total: int, shares: Sequence[float]) -> list[int]:
    """`total` split in proportion to `shares`, by the largest remainder (Hamilton); of equal remainders the first.

    The parts are whole, sum to `total`, and each is less than 1 away from its exact share.
    """
    exact = [total * Fraction(share) / sum(map(Fraction, shares)) for share in shares]
    parts = [math.floor(part) for part in exact]
    by_remainder = sorted(range(len(parts)), key=lambda index: parts[index] - exact[index])
    for index in by_remainder[: total - sum(parts)]:
        parts[index] += 1
    return parts


def by_origin(prompts: Sequence[Prompt], sources: int) -> list[list[Prompt]]:
    """The prompts of each source, in their order."""
    groups: list[list[Prompt]] = [[] for _ in range(sources)]
    for prompt in prompts:
        groups[prompt.origin].append(prompt)
    return groups


def first_of_each(prompts: Sequence[Prompt], most: int | None, shares: Sequence[float]) -> list[Prompt]:
    """At most `most` prompts: the first of each source, in proportion to `shares`, or to the sources' sizes without.

    A source that has fewer prompts than its share gives all of them.
    """
    if most is None or most >= len(prompts):
        return list(prompts)
    groups = by_origin(prompts, len(shares) or 1 + max(prompt.origin for prompt in prompts))
    parts = apportion(most, shares or [len(group) for group in groups])
    return [prompt for group, part in zip(groups, parts, strict=True) for prompt in islice(group, part)]


def check_shares(prompts: Sequence[Prompt], specs: Sequence[str], shares: Sequence[float]) -> None:
    """Raises `Refused` for a source without a prompt or without a place: the run would never see it."""
    if not shares:
        return
    groups, places = by_origin(prompts, len(specs)), apportion(len(prompts), shares)
    written = " ".join(f"{share:g}" for share in shares)
    for spec, group, count in zip(specs, groups, places, strict=True):
        if not group:
            raise Refused(f"--max_samples leaves no prompt of {spec} (--prompt_data_probs {written}); raise it")
        if not count:
            least = f"a share of {1 / len(prompts):.2g} or more works"
            raise Refused(
                f"--prompt_data_probs {written}: {spec} gets no place among the {len(prompts)} of an episode; {least}"
            )
