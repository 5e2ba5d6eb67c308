"""From a prompt's references to its pictures, when the prompt is taken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lightrft.prompts.bad_rows import BadRow
from lightrft.prompts.media.images import decodable, image_of, within
from lightrft.prompts.media.references import name_of
from lightrft.prompts.media.sources import source_of
from lightrft.prompts.media.videos import frames_video, video_of
from lightrft.prompts.media.volumes import is_volume, slices_of
from lightrft.types import Media, Prompt

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class MediaLimits:
    """max_pixels: of an image or a frame, larger ones are scaled down; fps: frames a second that are taken of a video
    file, None for all; max_images: most of one prompt. None: no limit.
    """

    max_pixels: int | None = None
    fps: float | None = None
    max_images: int | None = None


def media_of(prompt: Prompt, limits: MediaLimits) -> Media:
    """All media of a prompt. Raises `BadRow`: one line with the row's place, which image or video, and why."""
    images, slices = [], []
    for number, reference in enumerate(prompt.images, 1):
        with _placed(prompt, "image", number, prompt.images):
            made = _images(reference, prompt.folder, limits.max_pixels)
        images += made
        slices.append(len(made))
        if limits.max_images is not None and len(images) > limits.max_images:
            most = f"--limit_mm_image_per_prompt {limits.max_images}"
            raise BadRow(f"{prompt.where}: its images and slices of volumes are {len(images)} or more, over {most}")
    videos, rates = [], []
    for number, reference in enumerate(prompt.videos, 1):
        with _placed(prompt, "video", number, prompt.videos):
            frames, rate = _video(reference, prompt.folder, limits)
        videos.append(frames)
        rates.append(rate or limits.fps)
    return Media(tuple(images), tuple(videos), tuple(rates), tuple(slices))


@contextmanager
def _placed(prompt: Prompt, kind: str, number: int, all_of_it: Sequence[Any]) -> Iterator[None]:
    """Which one is meant, in front of what is wrong with it."""
    try:
        yield
    except BadRow as fault:
        name = name_of(all_of_it[number - 1])
        named = f" ({name})" if name and isinstance(name, str) else ""
        raise BadRow(f"{prompt.where}: {kind} {number} of {len(all_of_it)}{named} {fault}") from None


def _images(reference: Any, folder: str, max_pixels: int | None) -> list[Image]:
    from PIL import Image

    source = source_of(reference, folder)
    if source.is_folder:
        raise BadRow("is a folder; among the row's videos it is one, of the images in it")
    if not is_volume(source):
        return [image_of(source, max_pixels)]
    with decodable():
        return [within(Image.fromarray(each), max_pixels) for each in slices_of(source)]


def _video(reference: Any, folder: str, limits: MediaLimits) -> tuple[np.ndarray, float | None]:
    if not isinstance(reference, tuple):
        return video_of(source_of(reference, folder), limits.fps, limits.max_pixels)
    return frames_video(reference, folder, limits.max_pixels), None
