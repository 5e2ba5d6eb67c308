"""The folder of checkpoints: each is written under another name and renamed when whole; then the oldest are removed.

    .step_000012.tmp   being written, or being removed: rubbish, once its process is dead
    .step_000012.old   whole: a checkpoint that is being replaced, until the new one stands
    step_000012        whole
    latest             names the newest, for people and scripts; what counts is the highest step

Where a run has gone back, its next checkpoint names in a file those that it replaces: with it they are gone, at once.

So there is a whole checkpoint, whatever kills the process, and whenever.
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

from lightrft.loop.disk_errors import sync_entry, sync_to_disk

NAME = re.compile(r"step_(\d{6,})")
REPLACED = re.compile(r"\.step_(\d{6,})\.old")
REPLACES = "replaces"  # names of the later checkpoints that this one replaces, until they are removed
LEFT_OVER = re.compile(r"\.step_\d{6,}\.(tmp|old)|\.latest\.tmp")
GIB = 1 << 30


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    files = [path] if path.is_file() else [entry for entry in path.rglob("*") if entry.is_file()]
    return sum(entry.stat().st_size for entry in files)


class CheckpointFolder:
    """`<ckpt_path>/step_000012/` and a file `latest`; keeps at most `max_num` of them and `max_mem` GiB."""

    def __init__(self, path: Path, max_num: int, max_mem: int) -> None:
        self.path, self.max_num, self.max_mem = path, max_num, max_mem
        self._gone_back_to: int | None = None

    def begin(self, step: int) -> Path:
        """An empty folder, to be filled. Where that fails, `abandon` leaves everything as it was."""
        building = self.path / f".step_{step:06d}.tmp"
        self.clean()
        building.mkdir(parents=True)
        return building

    def finish(self, step: int) -> Path:
        """Makes the folder that `begin` made the newest checkpoint; it is whole."""
        final = self.path / f"step_{step:06d}"
        building, replaced = self.path / f".{final.name}.tmp", self.path / f".{final.name}.old"
        self._note_what_goes(building, but=final)
        sync_to_disk(building)
        if os.path.lexists(final):
            final.rename(replaced)
        building.rename(final)
        sync_entry(self.path)
        with suppress(PermissionError):  # one may write below a folder that one may not read
            sync_entry(self.path.parent)
        self._point_latest_at(final)
        self._gone_back_to = None
        self.clean()
        self._prune(keep=final)
        return final

    def abandon(self) -> None:
        """Undoes what `begin` began, or a `finish` that failed."""
        self.clean()

    def newest_first(self) -> list[tuple[int, Path]]:
        """Steps and checkpoints. Only whole ones have such names; loading shows whether one was damaged later."""
        checkpoints = {}
        for pattern in (REPLACED, NAME):
            matches = ((pattern.fullmatch(path.name), path) for path in self._entries())
            checkpoints |= {int(match[1]): path for match, path in matches if match}
        gone = {name for path in checkpoints.values() for name in _replaced_by(path)}
        return sorted(((step, path) for step, path in checkpoints.items() if path.name not in gone), reverse=True)

    def go_back(self, step: int) -> list[Path]:
        """The run goes on from `step`. Checkpoints beyond it are returned; they are removed when the next is whole."""
        self._gone_back_to = step
        return [path for number, path in self.newest_first() if number > step]

    def clean(self) -> list[str]:
        """Ends what a killed save or removal began, and returns the names of what was rubbish.

        A disk that refuses keeps its left-overs.
        """
        self._remove_what_is_replaced()
        left_over, rubbish = [path for path in self._entries() if LEFT_OVER.fullmatch(path.name)], []
        for path in sorted(left_over, key=lambda path: path.suffix, reverse=True):  # .tmp before .old
            with suppress(OSError):
                final = self.path / path.stem.removeprefix(".")
                if path.suffix == ".old" and not os.path.lexists(final):
                    path.rename(final)
                else:
                    rubbish.append(path.name)
                    self._remove(path)
        return sorted(rubbish)

    def _entries(self) -> list[Path]:
        return sorted(self.path.iterdir()) if self.path.is_dir() else []

    def _point_latest_at(self, final: Path) -> None:
        pointer = self.path / ".latest.tmp"
        try:
            pointer.write_text(final.name + "\n")
            pointer.replace(self.path / "latest")
        finally:
            pointer.unlink(missing_ok=True)

    def _note_what_goes(self, building: Path, but: Path) -> None:
        if self._gone_back_to is not None:
            beyond = [path.name for path in self.go_back(self._gone_back_to) if path != but]
            if beyond:
                (building / REPLACES).write_text("".join(f"{name}\n" for name in beyond))

    def _remove_what_is_replaced(self) -> None:
        """A disk that refuses keeps them."""
        for path in [path for _, path in self.newest_first() if _replaced_by(path)]:
            for name in _replaced_by(path):
                self._remove(self.path / name)
            with suppress(OSError):
                (path / REPLACES).unlink()

    def _prune(self, keep: Path) -> None:
        """Left-overs that a disk refuses to remove count as checkpoints do."""
        left_over = [size_of(path) for path in self._entries() if LEFT_OVER.fullmatch(path.name)]
        sizes = {path: size_of(path) for _, path in reversed(self.newest_first())}
        for path in list(sizes):
            too_many = len(sizes) + len(left_over) > self.max_num
            too_large = sum(sizes.values()) + sum(left_over) > self.max_mem * GIB
            if path == keep or not (too_many or too_large):
                return
            self._remove(path)
            del sizes[path]

    def _remove(self, path: Path) -> None:
        """Renamed first: a removal that is cut short leaves rubbish, and nothing that looks whole."""
        rubbish = self.path / f".{path.name.strip('.').split('.')[0]}.tmp"
        with suppress(OSError):
            path.rename(rubbish)
            if rubbish.is_symlink() or not rubbish.is_dir():
                rubbish.unlink()
            else:
                shutil.rmtree(rubbish)


def _replaced_by(checkpoint: Path) -> list[str]:
    try:
        return (checkpoint / REPLACES).read_text().split()
    except OSError:
        return []
