"""metrics.jsonl: one object per step, in order, only whole lines, also after a full disk, a kill and a resume."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

from lightrft.track.base import Logger
from lightrft.track.step_files import set_aside, write_whole


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The whole lines of a metrics file, in their order; parts of lines, from a kill or a power cut, are left out."""
    return read_from(path, 0)[0]


def read_from(path: Path, start: int) -> tuple[list[dict[str, float]], int]:
    """The whole lines from byte `start` on, and the byte after them."""
    if not path.is_file():
        return [], start
    with path.open("rb") as file:
        file.seek(start)
        content = file.read()
    whole = content[: content.rfind(b"\n") + 1]
    rows = [_row(line) for line in whole.split(b"\n")]
    return [row for row in rows if row is not None], start + len(whole)


def _row(line: bytes) -> dict[str, float] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None


class MetricsFile(Logger):
    """Starts after step `resumed`: first it removes the lines that a killed run wrote beyond its checkpoint."""

    def __init__(self, path: Path, resumed: int) -> None:
        if not resumed:
            set_aside(path)  # a run that starts fresh removes nothing
        rows = [row for row in read_metrics(path) if row["step"] <= resumed]
        write_whole(path, "".join(json.dumps(row) + "\n" for row in rows))
        self._file = path.open("ab", buffering=0)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Unbuffered: where a full disk takes half a line, that half can be removed. It would hide the next line."""
        row = {name: value if math.isfinite(value) else None for name, value in values.items()}
        start, rest = self._file.seek(0, os.SEEK_END), (json.dumps({"step": step, **row}) + "\n").encode()
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            self._file.truncate(start)
            raise

    def close(self) -> None:
        self._file.close()
