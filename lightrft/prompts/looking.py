"""What `--dry_run` reads of images and videos: a few prompts from all over the data, for as long as it may take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic

from lightrft.prompts.bad_rows import BadRow, BadRows, origins
from lightrft.types import Prompt, Request

MOST_PROMPTS = 16
MOST_S = 10.0


def look_at_some(
    prompts: Sequence[Prompt], read: Callable[[Prompt], Request], bad: BadRows, clock: Callable[[], float] = monotonic
) -> tuple[list[Prompt], list[str]]:
    """The prompts without those that turned out to be bad rows, and a line that says how many were looked at.

    read: raises `BadRow`. The time is looked at between two prompts: one is read whatever it takes.
    """
    seen, ends = [prompt for prompt in prompts if prompt.has_media], clock() + MOST_S
    lengths, faulty = [], set()
    for prompt in (seen[place] for place in spaced(len(seen), MOST_PROMPTS)):
        if (lengths or faulty) and clock() > ends:
            break
        try:
            lengths.append(len(read(prompt).prompt_ids))
        except BadRow as fault:
            bad.add(prompt.origin, prompt.where, str(fault).removeprefix(f"{prompt.where}: "))
            faulty.add(id(prompt))
    kept = [prompt for prompt in prompts if id(prompt) not in faulty]
    bad.settle(origins(prompts) - origins(kept))
    return kept, [_told(bad.flag, len(lengths) + len(faulty), len(seen), lengths)] if seen else []


def spaced(count: int, most: int) -> Sequence[int]:
    """At most `most` of the numbers below `count`, the first and the last among them."""
    if count <= most:
        return range(count)
    return [round(number * (count - 1) / (most - 1)) for number in range(most)]


def _told(flag: str, looked_at: int, there: int, lengths: Sequence[int]) -> str:
    tokens = f"{min(lengths)} to {max(lengths)} tokens each" if lengths else "none of them can be used"
    rest = "" if looked_at == there else "; the others are read when their turn comes"
    return f"images of {flag}: {looked_at} of {there} prompts were looked at, {tokens}{rest}"
