"""What an engine's processes leave behind when they are ended by a signal: files in shared memory, and temporary ones.

Such files have a mark in their names that says whose they are: which process asked for the engine, when that began, in
which namespace of processes, and a number. So it removes them when the engine is closed. Where it was killed itself,
the next process that starts an engine removes what belongs to no living one.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

MARK = re.compile(r"lightrft-(\w+)-(\w+)-(\w+)-\w+-")
NUMBERS = itertools.count()
MARK_VARIABLE = "LIGHTRFT_MARK"  # by which the engine's processes are told


def new_mark() -> str:
    return f"lightrft-{_namespace():x}-{os.getpid():x}-{_began(os.getpid()):x}-{next(NUMBERS):x}-"


def remove_marked(mark: str) -> None:
    _remove(lambda name: mark in name)


def remove_orphans() -> None:
    """Of processes of this namespace alone: of others nobody here knows whether they live."""
    _remove(lambda name: (found := MARK.search(name)) is not None and _is_gone(*found.groups()))


def _remove(is_meant: Callable[[str], bool]) -> None:
    for path in _files():
        if is_meant(path.name):
            with suppress(OSError):  # another user's, or somebody was faster
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _files() -> Iterator[Path]:
    for folder in {Path("/dev/shm"), Path(tempfile.gettempdir())}:
        with suppress(OSError):
            yield from folder.iterdir()


def _is_gone(namespace: str, process: str, began: str) -> bool:
    return int(namespace, 16) == _namespace() and _began(int(process, 16)) != int(began, 16)


def _namespace() -> int:
    with suppress(OSError):
        return os.stat("/proc/self/ns/pid").st_ino
    return 0


def _began(process: int) -> int:
    """Clock ticks after the machine's start; 0: there is no such process."""
    with suppress(OSError):
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19])
    return 0
