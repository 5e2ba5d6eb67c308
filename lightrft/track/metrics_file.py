"""metrics.jsonl: one object per step, in order, whole lines only, also after a full disk, a kill and a resume."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

from lightrft.track.base import Logger
from lightrft.track.step_files import write_whole


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The whole lines of a metrics file; a last line that a kill cut short is left out."""
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


class MetricsFile(Logger):
    """Starts after step `resumed`: what a killed run wrote beyond its checkpoint is taken back first."""

    def __init__(self, path: Path, resumed: int) -> None:
        if not resumed and path.is_file() and path.stat().st_size:
            os.replace(path, path.with_suffix(".jsonl.old"))  # a run that starts fresh takes nothing away
        kept = [row for row in read_metrics(path) if row["step"] <= resumed]
        write_whole(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = path.open("ab", buffering=0)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Unbuffered, so that what fits of a line on a full disk can be taken back: half a line would hide the next."""
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
