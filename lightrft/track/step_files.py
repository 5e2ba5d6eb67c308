"""Files of single steps: written whole or not at all, and removed when a run resumes before their step."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path

STEP = re.compile(r"_(\d{6,})\.\w+$")


def write_whole(path: Path, content: str | bytes) -> None:
    """A reader never sees half a file, and a failed write (a full disk) leaves the old one as it was."""
    unfinished = path.with_name(f".{path.name}.tmp")
    try:
        unfinished.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def remove_after(folder: Path, resumed: int) -> None:
    """Removes `<name>_<step>.<ending>` beyond step `resumed`. A run that starts fresh (0) sets them aside as `.old`."""
    for path in folder.iterdir():
        step = STEP.search(path.name)
        if step and int(step[1]) > resumed:
            path.unlink() if resumed else set_aside(path)


def set_aside(path: Path) -> None:
    """A file that exists and is not empty becomes `<name>.old`, or `.old2` where that is taken, and so on."""
    if not path.is_file() or not path.stat().st_size:
        return
    numbers = itertools.chain([""], itertools.count(2))
    names = (path.with_name(f"{path.name}.old{number}") for number in numbers)
    path.rename(next(name for name in names if not os.path.lexists(name)))
