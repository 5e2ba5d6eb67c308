"""Volumes as stacks of slices: 3-D arrays (.npy) along their first axis, NIfTI along its last.

Among a row's videos a volume is one video whose frames are its slices, as the recipe of volume localisation asks for
it. Among its images it is as many images as it has slices, for models without video: its one mark stands for all.

Nothing is turned or mirrored: frame z of a NIfTI file holds at row y and column x the voxel (x, y, z) of the file, so
places in an answer are indices of voxels. An array [z, y, x] is taken likewise; [z, y, x, 3] in bytes is in colour.
Bytes stay as they are; all else is spread over 0 to 255, from the least to the greatest value of the whole volume.
"""

from __future__ import annotations

import gzip
import math
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from lightrft.errors import RunFailed
from lightrft.prompts.bad_rows import BadRow
from lightrft.prompts.media.sources import Source

ARRAYS, NIFTI = (".npy",), (".nii", ".nii.gz")
MOST_VOXELS = 1 << 29
MAGIC = b"\x93NUMPY"


def is_volume(source: Source) -> bool:
    named = source.ends_in((*ARRAYS, *NIFTI))
    return named or (isinstance(source.content, bytes) and source.content.startswith(MAGIC))


def slices_of(source: Source) -> np.ndarray:
    """uint8 [slices, height, width, 3]. Raises `BadRow`."""
    volume = _nifti(source) if source.ends_in(NIFTI) else _array(source)
    in_colour = volume.ndim == 4 and volume.shape[-1] == 3 and volume.dtype == np.uint8
    if volume.ndim != 3 and not in_colour:
        raise BadRow(f"is an array of shape {list(volume.shape)} and type {volume.dtype}; one of 3 dimensions works")
    if not 0 < math.prod(volume.shape[:3]) <= MOST_VOXELS:
        raise BadRow(f"has shape {list(volume.shape)}; from 1 to {MOST_VOXELS} voxels work")
    if volume.dtype.kind not in "buif":
        raise BadRow(f"holds values of type {volume.dtype}; numbers work")
    return np.ascontiguousarray(volume) if in_colour else np.repeat(spread(volume)[..., None], 3, axis=-1)


def spread(values: np.ndarray) -> np.ndarray:
    """As uint8: bytes as they are, else 0 for the least and 255 for the greatest; 0 for what is no number.

    All are 0 where there are no two different ones.
    """
    if values.dtype == np.uint8:
        return np.asarray(values)
    low, high = _range(values)
    made = np.zeros(values.shape, np.uint8)
    if high > low:
        for index, part in enumerate(values):  # slice by slice: floats take four to eight times the memory
            halves = part.astype(np.float64) / 2  # of halves: a difference of floats may be none
            share = (halves - low / 2) / (high / 2 - low / 2)
            made[index] = np.rint(np.where(np.isfinite(halves), share, 0) * 255)
    return made


def _range(values: np.ndarray) -> tuple[float, float]:
    finite = [part[np.isfinite(part)] for part in values]
    filled = [part for part in finite if part.size]
    return min((float(part.min()) for part in filled), default=0), max(
        (float(part.max()) for part in filled), default=0
    )


def _array(source: Source) -> np.ndarray:
    content = source.openable()
    if isinstance(content, Path):
        return np.load(content, mmap_mode="r", allow_pickle=False)
    return np.load(content, allow_pickle=False)


def _nifti(source: Source) -> np.ndarray:
    """[z, y, x]."""
    try:
        import nibabel
    except ImportError as error:
        raise RunFailed(f"{source.name} needs a package: pip install nibabel ({error})") from None
    content = source.openable()
    image: Any = nibabel.load(content) if isinstance(content, Path) else _nifti_of(content, nibabel)  # pyright: ignore
    shape = tuple(image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        raise BadRow(f"holds an array of shape {list(image.shape)}; one of 3 dimensions works")
    if not 0 < math.prod(shape) <= MOST_VOXELS:
        raise BadRow(f"has shape {list(shape)}; from 1 to {MOST_VOXELS} voxels work")
    is_as_stored = (image.dataobj.slope, image.dataobj.inter) == (1, 0)
    voxels = np.asanyarray(image.dataobj) if is_as_stored else image.get_fdata(dtype=np.float32, caching="unchanged")
    return voxels.reshape(shape).transpose(2, 1, 0)


def _nifti_of(content: Any, nibabel: Any) -> Any:
    data = content.read()
    if data.startswith(b"\x1f\x8b"):
        data = gzip.GzipFile(fileobj=BytesIO(data)).read(8 * MOST_VOXELS)
    return nibabel.Nifti1Image.from_bytes(data)
