"""Files that steps leave behind: written whole or not at all, and taken back when a run resumes before them."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path

STEP = re.compile(r"_(\d{6,})\.\w+$")


def write_whole(path: Path, content: str | bytes) -> None:
    """A reader never sees half a file, and a failed write (a full disk) leaves the old one as it was."""
    beside = path.with_name(f".{path.name}.tmp")
    try:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def take_back(folder: Path, resumed: int) -> None:
    """Removes `<name>_<step>.<ending>` beyond step `resumed`. A run that starts fresh (0) sets them aside as `.old`."""
    for path in folder.iterdir():
        named = STEP.search(path.name)
        if named and int(named[1]) > resumed:
            path.unlink() if resumed else set_aside(path)


def set_aside(path: Path) -> None:
    """A file that is there and not empty becomes `<name>.old`, or `.old2` where that is taken, and so on."""
    if not path.is_file() or not path.stat().st_size:
        return
    numbers = itertools.chain([""], itertools.count(2))
    names = (path.with_name(f"{path.name}.old{number}") for number in numbers)
    path.rename(next(name for name in names if not os.path.lexists(name)))
