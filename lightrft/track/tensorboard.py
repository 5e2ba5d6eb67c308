"""`--use_tensorboard DIR`: every metric, response lengths as histograms, the arguments as text."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightrft.track.base import Logger
from lightrft.track.samples import Sample
from lightrft.types import Outcome


class TensorBoard(Logger):
    """Writes the event file itself: TensorBoard's writers use a thread, whose errors come some steps later, with a
    traceback. Here each step is one event, on the disk when `metrics` returns. TensorBoard hides the points that the
    folder had from the start of this run on.
    """

    def __init__(self, folder: Path, resumed: int, arguments: Mapping[str, Any]) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter
        from torch.utils.tensorboard.summary import text

        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a folder in the order of their names: by the time they were made.
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._event: Any = event_pb2
        self._summary: Any = summary_pb2
        self._file = (folder / name).open("wb")
        self._records = RecordWriter(self._file)
        self._write(file_version="brain.Event:2")
        first = resumed + 1 if resumed else 0
        self._write(step=first, session_log=self._event.SessionLog(status=self._event.SessionLog.START))
        self._write(step=resumed, summary=text("arguments", _table(arguments)))

    def evaluated(self, values: Mapping[str, float]) -> None:
        self.metrics(values, 0)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        points = [self._summary.Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(step=step, summary=self._summary.Summary(value=points))

    def rollouts(self, outcomes: Sequence[Outcome], samples: Sequence[Sample], step: int) -> None:
        import numpy as np
        from torch.utils.tensorboard.summary import histogram

        lengths = np.array([outcome.length for outcome in outcomes])
        self._write(step=step, summary=histogram("rollout/length", lengths, bins="auto", max_bins=30))

    def close(self) -> None:
        self._file.close()

    def _write(self, **fields: Any) -> None:
        self._records.write(self._event.Event(wall_time=time.time(), **fields).SerializeToString())
        self._records.flush()


def _table(arguments: Mapping[str, Any]) -> str:
    """Markdown."""
    rows = (f"| {name} | {value} |" for name, value in arguments.items())
    return "\n".join(["| flag | value |", "|---|---|", *rows])
