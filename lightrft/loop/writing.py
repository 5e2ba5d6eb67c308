"""The writing of a checkpoint by all ranks: each its own files, rank 0 all else. It is whole on all ranks, or on none.

rank 0 makes the folder            `begin`
each rank writes, flushes, sums    behind the next steps, where that pays
all tell all how it went           `settle`, between two steps: collectives have their place in the loop
rank 0 closes it, and renames it
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TypeVar

from lightrft.errors import RunFailed
from lightrft.loop.checkpoint_folder import CheckpointFolder
from lightrft.loop.checksums import Sums, sums_of
from lightrft.loop.disk_errors import as_disk_error, sync_entry
from lightrft.ranks.base import Ranks
from lightrft.ranks.together import on_all, on_first

T = TypeVar("T")


@dataclass(frozen=True)
class Contents:
    """write: makes this rank's files in a folder, and returns them; it needs no other rank.

    close: makes what rank 0 adds, from the sums of all files.
    """

    write: Callable[[Path], Iterable[Path]]
    close: Callable[[Path, Sums], None]


@dataclass(frozen=True)
class _Begun:
    step: int
    path: Path
    contents: Future[Contents]
    sums: Future[Sums]


class Writer:
    """behind: files are written by a thread, while the run goes on. failure: what a disk's refusal is raised as."""

    def __init__(
        self, folder: CheckpointFolder, ranks: Ranks, failure: Callable[[int, OSError], RunFailed], *, behind: bool
    ) -> None:
        self.folder, self.ranks, self.failure, self.behind = folder, ranks, failure, behind
        self._begun: _Begun | None = None

    def begin(self, step: int, prepare: Callable[[Path], Callable[[], Contents]]) -> None:
        """prepare: what all ranks make together. Where that breaks off on a rank it is raised there; else it returns
        what copies, without any other rank, what the next steps change.
        """
        with self._all_or_none():
            path = on_first(self.ranks, lambda: self._told(step, lambda: self.folder.begin(step)))
            stage = prepare(path)
        begun = self._begun = _Begun(step, path, Future(), Future())
        _fulfil(begun.contents, stage)
        work = (begun.sums, lambda: _write(begun))
        Thread(target=_fulfil, args=work, daemon=True).start() if self.behind else _fulfil(*work)

    def settle(self, *, wait: bool = True) -> tuple[int, Path] | None:
        """Step and path of the checkpoint that was begun, whole; None where there is none, or where a rank is still
        writing and nobody waits.

        Raises on all ranks where one could not write; then nothing has changed in the folder.
        """
        begun = self._begun
        if begun is None or not (wait or all(self.ranks.gather([begun.sums.done()]))):
            return None
        self._begun = None
        with self._all_or_none():
            parts = on_all(self.ranks, lambda: self._told(begun.step, begun.sums.result))
            path = on_first(self.ranks, lambda: self._told(begun.step, lambda: self._finish(begun, parts)))
        return begun.step, path

    def _finish(self, begun: _Begun, parts: Sequence[Sums]) -> Path:
        begun.contents.result().close(begun.path, {name: file for part in parts for name, file in part.items()})
        return self.folder.finish(begun.step)

    def _told(self, step: int, do: Callable[[], T]) -> T:
        try:
            return do()
        except OSError as error:
            raise self.failure(step, error) from error

    @contextmanager
    def _all_or_none(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            if self.ranks.rank == 0:
                self.folder.abandon()
            raise


def _write(begun: _Begun) -> Sums:
    contents = begun.contents.result()
    if not begun.path.is_dir():
        remedy = "choose one on a file system that all of them share"
        raise OSError(f"it is not there on {socket.gethostname()}, which is another machine than rank 0's; {remedy}")
    with as_disk_error(begun.path):
        files = list(contents.write(begun.path))
    for file in files:
        sync_entry(file)
    return sums_of(begun.path, files)


def _fulfil(future: Future[T], do: Callable[[], T]) -> None:
    try:
        future.set_result(do())
    except BaseException as error:
        future.set_exception(error)
