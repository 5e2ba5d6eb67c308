"""One engine for several ranks (tensor parallelism), which the rest of the program sees as one for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import torch.distributed as dist

from lightrft.models.fingerprint import MODULUS
from lightrft.ranks.base import Ranks, World
from lightrft.ranks.collectives import Collectives
from lightrft.ranks.launch import when_leaving
from lightrft.ranks.together import together
from lightrft.rollouts.engines.base import InferenceEngine, Sampling
from lightrft.rollouts.engines.presence import What

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lightrft.types import Generation, Request

T = TypeVar("T")


class EngineRanks(Collectives):
    """The ranks that share this one's engine: `size` neighbours."""

    def __init__(self, world: World, size: int) -> None:
        super().__init__(world, everyone=True)
        self.rank, self.size, self.group = world.rank % size, size, engine_group(world, size)


@cache
def engine_group(world: World, size: int) -> dist.ProcessGroup:
    """Every rank asks for it at the same place: all groups are made by all ranks."""
    when_leaving(engine_group.cache_clear)
    groups = [dist.new_group(range(start, start + size)) for start in range(0, world.size, size)]
    group = groups[world.rank // size]
    assert isinstance(group, dist.ProcessGroup)
    return group


class TPGroup:
    """engine: this rank's part of it, where all parts make the same calls (vLLM). Or the first rank has the whole
    engine and the others None: it alone is asked, and tells the others (SGLang).

    A request is answered for the rank that has it. `together`: where one rank fails all do, with the same words.
    """

    shares_weights = False

    def __init__(self, engine: InferenceEngine | None, ranks: Ranks, dtype: torch.dtype) -> None:
        self.engine, self.ranks, self.dtype, self.version = engine, ranks, dtype, 0
        self.in_parts = all(ranks.gather([engine is not None]))

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, *, at_once: int, enough: int | None = None
    ) -> list[list[Generation]]:
        """enough: of the requests of the whole group those of all its ranks together."""
        counts = self.ranks.gather([len(requests)])
        own = [replace(request, mm_inputs=None) for request in requests]  # such an engine has a processor of its own
        everyones = self.ranks.gather(own)
        limits: dict[str, Any] = {"at_once": at_once}
        limits["enough"] = None if enough is None else sum(self.ranks.gather([enough]))
        made = self._ask(lambda engine: engine.generate(everyones, sampling, **limits)) or []
        start = sum(counts[: self.ranks.rank])
        return made[start : start + len(requests)]

    def update_weights(self, params: Iterable[tuple[str, Tensor]], version: int) -> None:
        params = iter(params)

        def take(engine: InferenceEngine) -> None:
            try:
                engine.update_weights(params, version)
            finally:
                _go_through(params)

        if self.engine is None:
            _go_through(params)
        self._ask(take)
        self.version = version

    def fingerprints(self) -> Mapping[tuple[str, ...], int] | None:
        """Shards of a tensor add up to it."""
        own = self._ask(lambda engine: engine.fingerprints())
        if not self.in_parts:
            return own
        parts = self.ranks.gather([own])
        if any(part is None for part in parts):
            return None
        return {names: sum(part[names] for part in parts) % MODULUS for names in parts[0]}

    def sleep(self, *, keep_weights: bool) -> None:
        self._ask(lambda engine: engine.sleep(keep_weights=keep_weights))

    def wake(self, what: What) -> None:
        self._ask(lambda engine: engine.wake(what))

    def restart(self) -> None:
        self._ask(lambda engine: engine.restart())

    def stats(self) -> dict[str, float]:
        return self._ask(lambda engine: engine.stats()) or {}

    def close(self) -> None:
        """Each by itself: at the end of a run others may have gone."""
        if self.engine is not None:
            self.engine.close()

    def _ask(self, do: Callable[[InferenceEngine], T]) -> T | None:
        """What this rank's part answers, or the first rank's engine."""
        with together(self.ranks):
            found = None if self.engine is None else do(self.engine)
        return found if self.in_parts else self.ranks.gather([found])[0]


def _go_through(params: Iterable[tuple[str, Tensor]]) -> None:
    """The ranks gather each tensor together: also one whose engine takes none of them any more."""
    for _ in params:
        pass
