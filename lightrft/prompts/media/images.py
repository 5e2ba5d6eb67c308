"""An image file becomes an RGB picture as its author saw it, or is refused with the reason.

It is turned as its EXIF data say. What shines through is white. CMYK, palettes and grey become RGB; 16 bits a channel
become 8 by their full range, and values without a range of their own (32-bit integers and floats) are spread from the
least to the greatest. An animation is no image: it may stand among a row's videos.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from lightrft.errors import RunFailed, error_text
from lightrft.prompts.bad_rows import BadRow
from lightrft.prompts.media.references import is_pil
from lightrft.prompts.media.sources import Source
from lightrft.prompts.media.volumes import spread

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PIXELS = 178_956_970  # from which on Pillow takes an image for a decompression bomb
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "TGA", "ICO", "JPEG2000", "AVIF")
MOST_LETTERS = 200  # of a library's reason
OF_ONE_PICTURE = ("MPO", "ICO")  # photographs with a preview or depth behind them; icons of several sizes


def image_of(source: Source, max_pixels: int | None) -> Image:
    """RGB, of at most `max_pixels`. Raises `BadRow`, whose text goes on after "image 2 of 3 (a.png)"."""
    with opened(source) as image:
        if frames_of(image) > 1:
            raise BadRow(f"is animated ({frames_of(image)} frames): among the row's videos it works")
        return within(picture(image), max_pixels)


@contextmanager
def opened(source: Source) -> Iterator[Image]:
    """The image with its header read. What a library raises inside, whatever it is, leaves as a `BadRow`."""
    from PIL import Image

    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # it comes at half of the limit
    Image.init()
    with decodable():
        if is_pil(source.content):
            yield source.content
            return
        with Image.open(source.openable(), formats=[name for name in FORMATS if name in Image.OPEN]) as image:
            yield image


@contextmanager
def decodable() -> Iterator[None]:
    """Decoders raise errors of all kinds for bytes that they cannot read: each leaves as a `BadRow`."""
    try:
        yield
    except (BadRow, RunFailed):
        raise
    except Exception as error:
        raise BadRow(_reason(error)) from error


def _reason(error: Exception) -> str:
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return f"is no image, or of a format beside {', '.join(FORMATS)}"
    if isinstance(error, Image.DecompressionBombError):
        return f"is too large ({error_text(error)})"
    return f"cannot be decoded ({error_text(error, MOST_LETTERS)})"


def is_unknown(fault: BadRow) -> bool:
    """Whether the bytes are no image at all, rather than a broken one."""
    from PIL import UnidentifiedImageError

    return isinstance(fault.__cause__, UnidentifiedImageError)


def frames_of(image: Image) -> int:
    return 1 if image.format in OF_ONE_PICTURE else getattr(image, "n_frames", 1)


def picture(image: Image) -> Image:
    """An opened image in RGB, turned upright."""
    from PIL import ImageOps

    with decodable():
        _check_size(image)
        image.load()
        with suppress(Exception):  # broken EXIF data are as good as none
            image = ImageOps.exif_transpose(image)
        return _rgb(_in_eight_bits(image))


def within(image: Image, max_pixels: int | None) -> Image:
    """Of at most `max_pixels`, scaled down by one factor for both sides where it has more."""
    width, height = image.size
    if max_pixels is None or width * height <= max_pixels:
        return image
    factor = (max_pixels / (width * height)) ** 0.5
    width = min(max(1, int(width * factor)), max_pixels)
    height = min(max(1, int(height * factor)), max_pixels // width)
    return image.resize((min(width, max_pixels // height), height))  # a side of 1 stays 1


def _check_size(image: Image) -> None:
    width, height = image.size
    if not 0 < width * height <= MOST_PIXELS:
        raise BadRow(f"has {width} x {height} pixels; from 1 to {MOST_PIXELS} work")


def _in_eight_bits(image: Image) -> Image:
    from PIL import Image

    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        wide = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    return Image.fromarray(spread(np.asarray(image))) if image.mode in ("I", "F") else image


def _rgb(image: Image) -> Image:
    from PIL import Image

    if not image.has_transparency_data:
        return image.convert("RGB")
    layer: Any = image.convert("LA") if image.mode == "La" else image
    layer = layer.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(layer)
    return white.convert("RGB")
