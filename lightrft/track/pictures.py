"""What a prompt shows, small enough to be kept beside what was answered: a PNG file of each image and each video."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lightrft.prompts.bad_rows import BadRow
from lightrft.prompts.looking import spaced
from lightrft.types import Media, Prompt

if TYPE_CHECKING:
    from PIL.Image import Image

Read = Callable[[Prompt], Media]
LARGEST = 512  # pixels of a side
MOST_PICTURES = 16  # of a prompt; the slices of a volume can be hundreds
FRAMES, IN_A_ROW = 16, 4  # of a video, taken at equal distances, on one sheet


def pictures_of(prompt: Prompt, read: Read | None) -> tuple[bytes, ...]:
    """PNG files, images before videos, each at most 512 pixels wide and high. None of a text, and none of media that
    cannot be read any more: they were when the prompt was taken.
    """
    if read is None or not (prompt.images or prompt.videos):
        return ()
    try:
        media = read(prompt)
    except BadRow:
        return ()
    shown = [*media.images[:MOST_PICTURES], *map(_sheet, media.videos[:MOST_PICTURES])]
    return tuple(_png(image) for image in shown[:MOST_PICTURES])


def size_of(png: bytes) -> tuple[int, int]:
    """Width and height, from the file's first chunk."""
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def _png(image: Image) -> bytes:
    small = image.copy()
    small.thumbnail((LARGEST, LARGEST))
    made = io.BytesIO()
    small.save(made, "PNG")
    return made.getvalue()


def _sheet(frames: Any) -> Image:
    """frames: uint8 [F, H, W, 3], at least one. They stand in rows, the first at the upper left."""
    from PIL import Image

    chosen = [Image.fromarray(frames[place]) for place in spaced(len(frames), FRAMES)]
    for frame in chosen:
        frame.thumbnail((LARGEST // IN_A_ROW, LARGEST // IN_A_ROW))
    width, height = chosen[0].size
    columns = min(IN_A_ROW, len(chosen))
    sheet = Image.new("RGB", (columns * width, -(-len(chosen) // columns) * height))
    for number, frame in enumerate(chosen):
        sheet.paste(frame, (number % columns * width, number // columns * height))
    return sheet
