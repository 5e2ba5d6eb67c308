"""The endless stream of prompts: one permutation after another, nothing dropped between them; sources mixed."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np

from lightrft.prompts.shares import apportion, by_origin
from lightrft.types import Prompt


class PromptSampler:
    """Position p of the stream lies in episode p // P, whose order is drawn from (seed, episode).

    With `shares`, one per source, an episode has P places too, of which a source has its share, shuffled. Its places
    take the next prompts of the source's own endless stream, which goes on from episode to episode: one permutation
    per pass, drawn from (seed, source, pass). So a small source comes more than once in an episode, a large one needs
    several, and no prompt of a source comes again before all others of it have come.

    Either way the position alone decides the prompt: resuming needs a number and a queue, and no random state. Every
    rank builds the same stream.
    """

    def __init__(self, prompts: Sequence[Prompt], seed: int, shares: Sequence[float] = ()) -> None:
        assert len(prompts) > 0, "a sampler needs prompts"
        self._prompts = list(prompts)
        self._sources = by_origin(prompts, len(shares)) if shares else []
        self._places = apportion(len(prompts), shares) if shares else []
        assert all(self._sources) and all(self._places), "check_shares comes first"
        self._seed = seed
        self._next = 0
        self._queue: deque[int] = deque()
        # The queue may hold positions of the episode before, and a source may be in two passes within one.
        self._permutation = lru_cache(maxsize=4 * max(1, len(shares)))(_permutation)
        self._mixture = lru_cache(maxsize=4)(_mixture)

    def __len__(self) -> int:
        """Of an episode."""
        return len(self._prompts)

    def take(self, n: int) -> list[Prompt]:
        """The next `n` prompts with their `position`, those given back first."""
        return [replace(self._at(position), position=position) for position in (self._advance() for _ in range(n))]

    def upcoming(self, n: int) -> list[Prompt]:
        """What `take` would return."""
        queued = list(islice(self._queue, n))
        positions = [*queued, *range(self._next, self._next + n - len(queued))]
        return [replace(self._at(position), position=position) for position in positions]

    def give_back(self, prompts: Sequence[Prompt]) -> None:
        """Puts prompts that were taken and not used at the front, in the order given."""
        positions = [prompt.position for prompt in prompts]
        assert all(0 <= position < self._next for position in positions), "only taken prompts can be given back"
        self._queue.extendleft(reversed(positions))

    @property
    def episode(self) -> float:
        """Passes over the prompts that are done, with their fraction; prompts given back are not done."""
        return (self._next - len(self._queue)) / len(self._prompts)

    def state(self) -> dict[str, Any]:
        """For the checkpoint, as JSON."""
        return {"next": self._next, "queue": list(self._queue)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Raises `ValueError` for a damaged one."""
        self._next = int(state["next"])
        self._queue = deque(int(position) for position in state["queue"])
        if not all(0 <= position < self._next for position in self._queue) or self._next < 0:
            raise ValueError(f"no state of a stream of prompts: {dict(state)}")

    def _advance(self) -> int:
        if self._queue:
            return self._queue.popleft()
        self._next += 1
        return self._next - 1

    def _at(self, position: int) -> Prompt:
        episode, offset = divmod(position, len(self._prompts))
        if not self._sources:
            return self._prompts[self._permutation((self._seed, episode), len(self._prompts))[offset]]
        owners, turns = self._mixture((self._seed, episode), tuple(self._places))
        source = int(owners[offset])
        return self._of_source(source, episode * self._places[source] + int(turns[offset]))

    def _of_source(self, source: int, index: int) -> Prompt:
        """The prompt at `index` of a source's own endless stream."""
        prompts = self._sources[source]
        round_, offset = divmod(index, len(prompts))
        # numpy reads (seed, e) and (seed, e, 0) as one seed: passes count from 1, to share none with the episodes.
        return prompts[self._permutation((self._seed, source, round_ + 1), len(prompts))[offset]]


def _permutation(seed: tuple[int, ...], count: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(count)


def _mixture(seed: tuple[int, ...], places: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """For each place of an episode: its source, and how many places of that source stand before it."""
    owners = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(places)), places))
    turns = np.empty_like(owners)
    for source, count in enumerate(places):
        turns[owners == source] = np.arange(count)
    return owners, turns
