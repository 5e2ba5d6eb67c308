"""The folder of checkpoints: written beside, renamed when whole, `latest` moved last, the oldest removed after that.

So at every instant the newest whole checkpoint can be found, whatever kills the process.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

NAME = re.compile(r"step_(\d{6,})$")
GIB = 1 << 30


def size_of(path: Path) -> int:
    return sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file())


def sync_to_disk(folder: Path) -> None:
    """Flushes every file and folder: after the rename a power cut must not leave an empty checkpoint."""
    for entry in [*folder.rglob("*"), folder]:
        sync_entry(entry)


def sync_entry(entry: Path) -> None:
    descriptor = os.open(entry, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


class CheckpointFolder:
    """`<ckpt_path>/step_000012/` and a file `latest`; keeps at most `max_num` of them and `max_mem` GiB."""

    def __init__(self, path: Path, max_num: int, max_mem: int) -> None:
        self.path, self.max_num, self.max_mem = path, max_num, max_mem

    def save(self, step: int, write: Callable[[Path], None]) -> Path:
        """Calls `write` on an empty folder and makes it the newest checkpoint."""
        final = self.path / f"step_{step:06d}"
        building, replaced = self.path / f".{final.name}.tmp", self.path / f".{final.name}.old"
        for stale in (building, replaced):
            shutil.rmtree(stale, ignore_errors=True)
        building.mkdir(parents=True)
        write(building)
        sync_to_disk(building)
        if final.exists():
            final.rename(replaced)
        building.rename(final)
        sync_entry(self.path)
        shutil.rmtree(replaced, ignore_errors=True)
        self._point_latest_at(final)
        self._prune(keep=final)
        return final

    def newest(self) -> tuple[int, Path] | None:
        """The checkpoint `latest` names, else the one of the highest step; only whole ones have that name."""
        pointer = self.path / "latest"
        named = self.path / pointer.read_text().strip() if pointer.is_file() else None
        if named is not None and named.is_dir() and NAME.match(named.name):
            return _step(named), named
        found = self._all()
        return (_step(found[-1]), found[-1]) if found else None

    def _all(self) -> list[Path]:
        found = [path for path in self.path.glob("step_*") if NAME.match(path.name)]
        return sorted(found, key=_step)

    def _point_latest_at(self, final: Path) -> None:
        pointer = self.path / ".latest.tmp"
        pointer.write_text(final.name + "\n")
        pointer.rename(self.path / "latest")

    def _prune(self, keep: Path) -> None:
        found = self._all()
        sizes = {path: size_of(path) for path in found}
        for path in found:
            too_many, too_large = len(sizes) > self.max_num, sum(sizes.values()) > self.max_mem * GIB
            if path == keep or not (too_many or too_large):
                return
            shutil.rmtree(path)
            del sizes[path]


def _step(path: Path) -> int:
    match = NAME.match(path.name)
    assert match is not None, path
    return int(match.group(1))
