"""metrics.jsonl: one object per step, in order, whole lines only, also after a kill and a resume."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from lightrft.types import Rollout


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The whole lines of a metrics file; a last line that a kill cut short is left out."""
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


class MetricsFile:
    """Starts after step `resumed`: what a killed run wrote beyond its checkpoint is taken back first."""

    def __init__(self, path: Path, resumed: int) -> None:
        self._path = path
        if not resumed and path.is_file() and path.stat().st_size:
            os.replace(path, path.with_suffix(".jsonl.old"))  # a run that starts fresh takes nothing away
        kept = [row for row in read_metrics(path) if row["step"] <= resumed]
        beside = path.with_suffix(".tmp")
        beside.write_text("".join(json.dumps(row) + "\n" for row in kept))
        os.replace(beside, path)
        self._file = path.open("a")

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        row = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **row}) + "\n")
        self._file.flush()

    def rollouts(self, rollouts: Sequence[Rollout], step: int) -> None: ...

    def close(self) -> None:
        self._file.close()
