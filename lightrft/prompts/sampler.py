"""The endless stream of prompts: one permutation after another, nothing dropped between them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from lightrft.types import Prompt


class PromptSampler:
    """Position p of the stream lies in episode p // P, whose order is drawn from (seed, episode).

    So a position alone tells its prompt: resuming needs two numbers and a queue, and no random state. Every rank
    builds the same stream.
    """

    def __init__(self, prompts: Sequence[Prompt], seed: int) -> None:
        assert len(prompts) > 0, "a sampler needs prompts"
        self._prompts = list(prompts)
        self._seed = seed
        self._next = 0
        self._queue: deque[int] = deque()

    def take(self, n: int) -> list[Prompt]:
        """The next `n` prompts with their `position`, those given back first."""
        return [self._at(self._advance()) for _ in range(n)]

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
        """For the checkpoint; goes through JSON unharmed."""
        return {"next": self._next, "queue": list(self._queue)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._next = int(state["next"])
        self._queue = deque(int(position) for position in state["queue"])

    def _advance(self) -> int:
        if self._queue:
            return self._queue.popleft()
        self._next += 1
        return self._next - 1

    def _at(self, position: int) -> Prompt:
        episode, offset = divmod(position, len(self._prompts))
        index = _permutation(self._seed, episode, len(self._prompts))[offset]
        return replace(self._prompts[index], position=position)


@lru_cache(maxsize=4)  # the queue may hold positions of the episode before
def _permutation(seed: int, episode: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, episode)).permutation(count)
