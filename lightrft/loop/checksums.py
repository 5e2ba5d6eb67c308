"""Sizes and SHA-256 sums of a checkpoint's files: one that is not as it was written is found before it is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightrft.digest import sha256_of
from lightrft.errors import Damaged

Sums = Mapping[str, Mapping[str, Any]]  # path in the checkpoint -> its "bytes" and "sha256"


def files_below(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.rglob("*") if entry.is_file())


def sums_of(folder: Path, files: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Of files that were just written below `folder`."""
    return {
        file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "sha256": sha256_of(file)} for file in files
    }


def share(sums: Sums, rank: int, size: int) -> Sums:
    """The files that this rank checks: the largest first, each to the rank that has fewest bytes to read so far."""
    load, mine = [0] * size, {}
    for name in sorted(sums, key=lambda name: (-sums[name]["bytes"], name)):
        least = load.index(min(load))
        load[least] += sums[name]["bytes"] + 1
        if least == rank:
            mine[name] = sums[name]
    return mine


def check_files(folder: Path, sums: Sums) -> None:
    """Raises `Damaged`, or the system's error, where a file is not as it was written. Sizes first: they are free."""
    for name, expected in sums.items():
        size = (folder / name).stat().st_size
        if size != expected["bytes"]:
            raise Damaged(f"{name} has {size} bytes of {expected['bytes']}")
    for name, expected in sums.items():
        if sha256_of(folder / name) != expected["sha256"]:
            raise Damaged(f"{name} is not as it was written")
