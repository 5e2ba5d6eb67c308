"""Writing until the disk has it, and what is raised where the disk takes no more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROBE = 1 << 22  # bytes


def sync_to_disk(folder: Path) -> None:
    """Flushes every file and folder: after the rename a power cut must not leave an empty checkpoint."""
    for entry in [*folder.rglob("*"), folder]:
        sync_entry(entry)


def sync_entry(entry: Path) -> None:
    descriptor = os.open(entry, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


@contextmanager
def as_disk_error(folder: Path) -> Iterator[None]:
    """Writers in C++ and Rust hide that a disk is full. After an error of theirs a small file is written into `folder`:
    the `OSError` of that, where there is one, takes the error's place.
    """
    try:
        yield
    except OSError:
        raise
    except Exception:
        probe = folder / ".probe"
        try:
            probe.write_bytes(bytes(PROBE))
            sync_entry(probe)
        finally:
            probe.unlink(missing_ok=True)
        raise
