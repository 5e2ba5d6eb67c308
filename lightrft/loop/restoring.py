"""The newest checkpoint that is whole, found and loaded by all ranks together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lightrft.errors import Damaged, Refused
from lightrft.loop.checkpoint_folder import CheckpointFolder
from lightrft.loop.damage import check_damage, why_damaged
from lightrft.loop.origin import Origin
from lightrft.loop.shared import check_shared
from lightrft.ranks.base import Ranks
from lightrft.ranks.together import on_all, on_first

T = TypeVar("T")


@dataclass(frozen=True)
class Restored:
    """path: the checkpoint of `step` that was loaded. news: what the loop has said of its state.

    damaged: newer ones that could not be loaded, each with the reason. left_over: of killed saves, removed now.
    start: the one that `--ckpt_path` names, if it does.
    """

    step: int
    path: Path
    news: list[str]
    damaged: list[str]
    left_over: list[str]
    start: Path | None = None


def restore(
    folder: CheckpointFolder, origin: Origin, ranks: Ranks, load: Callable[[Path, int], list[str]]
) -> Restored | None:
    """None where there is none at all. load: raises `Damaged` on all ranks alike."""
    damaged: list[str] = []
    for step, path in on_first(ranks, lambda: origin.candidates(folder.newest_first())):
        check_shared(path, ranks)
        try:
            news = load(path, step)
        except Damaged as error:
            damaged.append(f"{path.name} ({error})")
        else:
            path, left_over = on_first(ranks, lambda step=step, path=path: _go_on_from(folder, step, path))
            return Restored(step, path, news, damaged, left_over, origin.start)
    if damaged:
        where = f"in {folder.path}" if origin.start is None else f"that goes on from --ckpt_path {origin.start}"
        raise Refused(
            f"--load_checkpoint: no checkpoint {where} can be loaded: {', '.join(damaged)}; "
            "bring one back, or start anew with another --save_path"
        )
    on_first(ranks, folder.clean)
    return None


def _go_on_from(folder: CheckpointFolder, step: int, path: Path) -> tuple[Path, list[str]]:
    """Where the checkpoint is now: one that a killed save had put aside gets its name back."""
    folder.go_back(step)
    left_over = folder.clean()
    return path if path.exists() else dict(folder.newest_first())[step], left_over


def or_damaged(ranks: Ranks, path: Path, do: Callable[[], T]) -> T:
    """What `do` returns here. Where the checkpoint at `path` turns out to be damaged on any rank, all raise `Damaged`.

    `Refused`, and what says nothing of the checkpoint (too little memory, a disk that fails), stays what it is.
    """

    def done() -> T:
        try:
            return do()
        except Refused:
            raise
        except Exception as error:
            check_damage(error, path)
            raise Damaged(why_damaged(error, path)) from error

    return on_all(ranks, done)[ranks.rank]
