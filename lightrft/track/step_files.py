"""Files that steps leave behind: written whole or not at all, and taken back when a run resumes before them."""

from __future__ import annotations

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
            path.unlink() if resumed else path.replace(path.with_name(f"{path.name}.old"))
