"""What a rule is: settings and a world size in, problems and notices out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from lightrft.args.settings import Notice, Problem
from lightrft.args.surface import Args

Finding = Problem | Notice
Rule = Callable[[Args, int], Iterator[Finding]]


def either(sizes: Iterable[int]) -> str:
    return " or ".join(map(str, sizes))


def processes(world_size: int) -> str:
    return f"{world_size} process{'es' if world_size > 1 else ''}"
