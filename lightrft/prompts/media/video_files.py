"""Frames of a video file, those that are shown at 0, 1/fps, 2/fps ... seconds: through torchcodec, else through av."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightrft.errors import RunFailed
from lightrft.prompts.bad_rows import BadRow
from lightrft.prompts.media.sources import Source

if TYPE_CHECKING:
    from PIL.Image import Image

FILES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv", ".ts")
MOST_FRAMES = 768
NEEDED = "needs a package: pip install av (or torchcodec, which needs FFmpeg)"
NEAR = 1e-6  # seconds


@dataclass(frozen=True)
class Timed:
    """A frame with the time from which it is shown, in seconds."""

    time: float
    frame: Any


def frames_of_file(source: Source, fps: float | None) -> tuple[Iterator[Image], float | None]:
    """The frames, decoded as they are asked for, and how many of them make a second. Raises what the library raises."""
    content = source.openable()
    try:
        from torchcodec.decoders import VideoDecoder  # pyright: ignore[reportMissingImports]
    except Exception:  # it is not installed, or not for this torch, or there is no FFmpeg: each its own error
        return _through_av(content, source.name, fps)
    return _through_torchcodec(VideoDecoder, content, fps)


def sampled(frames: Iterable[Timed], end: float, fps: float | None) -> Iterator[Any]:
    """Those shown at 0, 1/fps, 2/fps ... seconds after the first one and before `end`, each once; without `fps` all.

    The last frame is taken at its own time also where `end`, which some files do not tell, is earlier.
    """
    if fps is None:
        yield from (timed.frame for timed in frames)
        return
    shown, first, due = None, 0.0, 0
    for timed in frames:
        if shown is None:
            first = timed.time
        elif due / fps < timed.time - first - NEAR:
            yield shown.frame
            due = math.ceil((timed.time - first - NEAR) * fps)
        shown = timed
    if shown is not None and (due / fps < end - NEAR or due / fps <= shown.time - first + NEAR):
        yield shown.frame


def _through_torchcodec(decoder: Any, content: Any, fps: float | None) -> tuple[Iterator[Image], float | None]:
    video = decoder(str(content) if isinstance(content, Path) else content.read(), dimension_order="NHWC")
    begin, end = float(video.metadata.begin_stream_seconds), float(video.metadata.end_stream_seconds)
    rate = float(video.metadata.average_fps)
    _check_length(end - begin, rate, fps)
    times = [begin + index / fps for index in range(math.ceil((end - begin) * fps - NEAR))] if fps else []

    def frames() -> Iterator[Image]:
        before = None
        for frame in map(video.get_frame_played_at, times) if fps else map(video.get_frame_at, range(len(video))):
            if frame.pts_seconds != before:
                yield _image(frame.data.numpy())
            before = frame.pts_seconds

    return frames(), min(rate, fps or rate)


def _through_av(content: Any, name: str, fps: float | None) -> tuple[Iterator[Image], float | None]:
    try:
        import av  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise RunFailed(f"video {name or 'in bytes'} {NEEDED} ({error})") from None
    container = av.open(str(content) if isinstance(content, Path) else content)
    if not container.streams.video:
        raise BadRow("holds no video, only " + (", ".join(stream.type for stream in container.streams) or "nothing"))
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    rate = float(stream.average_rate or stream.guessed_rate or 0)
    ticks, tick = (stream.duration, stream.time_base) if stream.duration else (container.duration, 1 / av.time_base)
    length = float((ticks or 0) * (tick or 0))
    _check_length(length, rate, fps)

    def frames() -> Iterator[Image]:
        with container:
            decoded = enumerate(container.decode(stream))
            timed = (
                Timed(index / (rate or 1) if frame.time is None else frame.time, frame) for index, frame in decoded
            )
            yield from (_image(_upright(frame)) for frame in sampled(timed, length, fps))

    return frames(), min(rate, fps or rate) or None


def _upright(frame: Any) -> np.ndarray:
    """Phones write beside the frames how they were held; av tells it from version 14 on."""
    return np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))


def _image(frame: np.ndarray) -> Image:
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(frame))


def _check_length(seconds: float, rate: float, fps: float | None) -> None:
    """Before anything is decoded, as far as the file tells."""
    count = seconds * min(rate, fps or rate)
    if count > MOST_FRAMES + 1:
        raise BadRow(
            f"has {seconds:.0f} seconds, of which {count:.0f} frames are taken, and {MOST_FRAMES} is the most: "
            f"--fps {0.99 * MOST_FRAMES / seconds:.3g} works"
        )
