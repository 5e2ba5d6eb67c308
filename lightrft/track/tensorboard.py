"""`--use_tensorboard DIR`: every metric, response lengths as histograms, the arguments as text; the samples that
`--save_trajectories` saves as texts and images."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightrft.track.base import Logger
from lightrft.track.pictures import size_of
from lightrft.track.samples import Sample, shown_of
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
        from torch.utils.tensorboard.summary import histogram, text

        lengths = np.array([outcome.length for outcome in outcomes])
        self._write(step=step, summary=histogram("rollout/length", lengths, bins="auto", max_bins=30))
        for number, sample in enumerate(samples, 1):
            self._write(step=step, summary=text(f"samples/{number}", _as_text(sample)))
            for place, picture in enumerate(sample.pictures, 1):
                self._write(step=step, summary=self._image(f"samples/{number}/image_{place}", picture))

    def close(self) -> None:
        self._file.close()

    def _image(self, tag: str, png: bytes) -> Any:
        width, height = size_of(png)
        image = self._summary.Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=png)
        return self._summary.Summary(value=[self._summary.Summary.Value(tag=tag, image=image)])

    def _write(self, **fields: Any) -> None:
        self._records.write(self._event.Event(wall_time=time.time(), **fields).SerializeToString())
        self._records.flush()


def _as_text(sample: Sample) -> str:
    """Markdown; what people and models wrote is shown as it is."""
    shown = shown_of(sample)
    written = {"prompt": shown.prompt, "response": shown.response}
    blocks = [
        f"**{name}**\n\n" + "\n".join(f"    {line}" for line in text.split("\n")) for name, text in written.items()
    ]
    parts = ", ".join(f"{name} {value:g}" for name, value in shown.parts.items())
    return "\n\n".join([*blocks, f"**reward** {shown.reward:g}" + (f" ({parts})" if parts else "")])


def _table(arguments: Mapping[str, Any]) -> str:
    """Markdown."""
    rows = (f"| {name} | {value} |" for name, value in arguments.items())
    return "\n".join(["| flag | value |", "|---|---|", *rows])
