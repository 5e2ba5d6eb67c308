"""A video becomes an array of RGB frames, or is refused with the reason.

A file with times (a video, an animated image) gives the frames that are shown at 0, 1/fps, 2/fps ... seconds, each
once. What has no times is taken whole: a folder of frames, in the natural order of their names (9 before 10), a list
of images, and a volume, slice by slice. The frames of a video are of one size.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightrft.prompts.bad_rows import BadRow
from lightrft.prompts.media.images import decodable, frames_of, image_of, is_unknown, opened, picture, within
from lightrft.prompts.media.references import name_of
from lightrft.prompts.media.sources import Source, source_of
from lightrft.prompts.media.video_files import MOST_FRAMES, Timed, frames_of_file, sampled
from lightrft.prompts.media.volumes import is_volume, slices_of

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".tga", ".avif", ".jp2", ".gif")
MOST_PIXELS = 1 << 30  # of all frames together: 3 GiB
Video = tuple[np.ndarray, float | None]


def video_of(source: Source, fps: float | None, max_pixels: int | None) -> Video:
    """uint8 [frames, height, width, 3], and its frames a second, None without times. Raises `BadRow`."""
    if source.is_folder:
        return frames_video(_names_in(source), str(source.content), max_pixels), None
    with decodable():
        if is_volume(source):
            return _stacked(map(_image, slices_of(source)), max_pixels), None
        frames, rate = _animation(source, fps) or frames_of_file(source, fps)
        return _stacked(frames, max_pixels), rate


def frames_video(references: Sequence[Any], folder: str, max_pixels: int | None) -> np.ndarray:
    def frames() -> Iterator[Image]:
        for number, reference in enumerate(references, 1):
            try:
                yield image_of(source_of(reference, folder), max_pixels)
            except BadRow as fault:
                name = name_of(reference)
                named = f" ({name})" if name else ""
                raise BadRow(f"has a frame {number} of {len(references)}{named} that {fault}") from None

    return _stacked(frames(), max_pixels)


def _names_in(folder: Source) -> list[str]:
    assert isinstance(folder.content, Path), "a folder has a path"
    with decodable():
        names = [path.name for path in folder.content.iterdir() if path.name.lower().endswith(PICTURES)]
    shown = [name for name in names if not name.startswith(".")]
    if not shown:
        raise BadRow(f"is a folder without images ({', '.join(PICTURES)})")
    return sorted(shown, key=_natural)


def _natural(name: str) -> list[Any]:
    """Numbers in a name count as numbers: frame9 before frame10."""
    words = re.split(r"([0-9]+)", name)
    return [(int(word), "") if index % 2 else (-1, word) for index, word in enumerate(words)]


def _animation(source: Source, fps: float | None) -> tuple[Iterator[Image], float | None] | None:
    """None where the source is no image at all."""
    try:
        with opened(source) as image:
            if (count := frames_of(image)) == 1:
                raise BadRow("is a single image and no video; among the row's images it works")
            lengths = [_seconds(image, index) for index in range(count)]
    except BadRow as fault:
        if is_unknown(fault):
            return None
        raise
    whole = sum(lengths)
    rate = count / whole if whole else None
    frames = sampled(_timed(source, lengths), whole, fps if whole else None)
    return frames, min(rate, fps or rate) if rate else None


def _seconds(image: Image, index: int) -> float:
    """How long a frame is shown."""
    image.seek(index)
    image.load()  # WebP tells it only then
    return float(image.info.get("duration") or 0) / 1000


def _timed(source: Source, lengths: Sequence[float]) -> Iterator[Timed]:
    time = 0.0
    with opened(source) as image:
        for index, length in enumerate(lengths):
            image.seek(index)
            yield Timed(time, picture(image.copy()))
            time += length


def _stacked(frames: Iterable[Image], max_pixels: int | None) -> np.ndarray:
    kept: list[Image] = []
    for frame in frames:
        kept.append(within(frame, max_pixels))
        if len(kept) > MOST_FRAMES:
            raise BadRow(f"has more than {MOST_FRAMES} frames; a lower --fps takes fewer of a file")
        if len(kept) * kept[0].width * kept[0].height > MOST_PIXELS:
            raise BadRow(f"has more than {MOST_PIXELS} pixels in all; --max_pixels or a lower --fps takes fewer")
        if kept[-1].size != kept[0].size:
            sizes = [f"{width} x {height}" for width, height in (kept[-1].size, kept[0].size)]
            raise BadRow(f"has frames of several sizes: number {len(kept)} has {sizes[0]} pixels, the first {sizes[1]}")
    if not kept:
        raise BadRow("has no frame")
    return np.stack([np.asarray(frame) for frame in kept])


def _image(array: np.ndarray) -> Image:
    from PIL import Image

    return Image.fromarray(array)
