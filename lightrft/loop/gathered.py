"""Whole parameters, which all ranks gather together, and the first rank writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from lightrft.ranks.base import Ranks

T = TypeVar("T")


def write_gathered(
    models: Mapping[Path, Iterator[T]], write: Callable[[Path, Iterable[T]], None], ranks: Ranks
) -> Exception | None:
    """Rank 0 writes each model to its place, and returns why it could not; all ranks gather to the end, also then.

    An error of the gathering itself is raised where it happens, and nobody is asked: the other ranks wait inside it for
    this one, which has to end to be missed.
    """
    refused = None
    for place, params in models.items():
        if ranks.rank == 0 and refused is None:
            refused = _why_not(write, place, params)
        for _ in params if ranks.size > 1 else ():
            pass
    return refused


def _why_not(write: Callable[[Path, Iterable[T]], None], place: Path, params: Iterator[T]) -> Exception | None:
    broken: list[Exception] = []
    try:
        write(place, _watched(params, broken))
    except Exception as error:
        if broken:
            raise
        return error
    return None


def _watched(params: Iterator[T], broken: list[Exception]) -> Iterator[T]:
    """`params` can be gathered on where the reader of this stops: `yield from` would close it."""
    try:
        for each in params:  # noqa: UP028
            yield each
    except Exception as error:
        broken.append(error)
        raise
